"""Time-outs given in seconds, and the absolute deadlines that are passed down from there."""

from __future__ import annotations

import math
import time
from numbers import Real

# Nanoseconds of the monotonic clock; None is never. `time.perf_counter_ns` reads it, with the same
# origin in every process: CLOCK_MONOTONIC, and QueryPerformanceCounter on Windows, where
# `time.perf_counter_ns` counts in steps of 16 ms before Python 3.13.
Deadline = int | None

_CENTURY = 100 * 365 * 86400.0


def check_seconds(name: str, value: object) -> float:
    """
    Return *value* as a number of seconds, a hundred years at most.

    Raises:
        TypeError, ValueError: it is not a number, or not a number of seconds; both name it.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"{name} must be a number of seconds, not {type(value).__name__}"
        raise TypeError(msg)
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    if math.isnan(seconds):
        msg = f"{name} must be a number of seconds, not NaN"
        raise ValueError(msg)
    return min(seconds, _CENTURY)


def check_timeout(name: str, value: object) -> float | None:
    """Return *value* as a number of seconds from now, with None for no limit."""
    if value is None:
        return None
    seconds = check_seconds(name, value)
    return None if seconds == _CENTURY else seconds


def after(seconds: float | None) -> Deadline:
    """Return the deadline that is *seconds* away; zero and less are over already."""
    if seconds is None:
        return None
    return time.perf_counter_ns() + int(max(seconds, 0.0) * 1e9)


def earlier(one: Deadline, other: Deadline) -> Deadline:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def has_passed(deadline: Deadline) -> bool:
    return deadline is not None and time.perf_counter_ns() >= deadline


def remaining(deadline: Deadline) -> float | None:
    """Return the seconds that are left, never less than zero."""
    return None if deadline is None else max(deadline - time.perf_counter_ns(), 0) / 1e9
