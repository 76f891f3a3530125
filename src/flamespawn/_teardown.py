"""Stopping ranks: which signal is due when, as data and one deadline."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flamespawn._member import Member
from flamespawn._native import ProcSet
from flamespawn._platform import KILL, STOP

# Seconds between SIGTERM and SIGKILL where the caller does not say.
DEFAULT_GRACE_PERIOD = 5.0

# A rank whose function has ended is on its way out: its exit handlers may run for this long, or
# for the grace period if that is shorter, before it gets SIGTERM like the others.
EXIT_TIME = 0.5

# The time that a killed process has to disappear. One that does not is stuck in the kernel, where
# no signal reaches it, and nobody can say for how long.
REAP_TIME = 2.0


class Teardown:
    """
    The ending of all ranks within one deadline.

    Args:
        members: all ranks; those that have ended are left alone.
        grace_period: seconds from SIGTERM to SIGKILL.
    """

    def __init__(self, members: Sequence[Member], grace_period: float) -> None:
        now = time.perf_counter_ns()
        grace = max(grace_period, 0.0)
        leaving = [member for member in members if member.source.is_leaving]
        others = [member for member in members if not member.source.is_leaving]
        plan: list[tuple[float, Sequence[Member], int]] = [
            (0.0, others, STOP),
            (min(EXIT_TIME, grace), leaving, STOP),
            (grace, members, KILL),
        ]
        self._steps = [(now + int(delay * 1e9), who, signum) for delay, who, signum in plan]
        self._members = members
        self._end = now + int((grace + REAP_TIME) * 1e9)

    def hasten(self, grace_period: float) -> None:
        """Move SIGKILL forward to *grace_period* seconds from now, never back."""
        limit = time.perf_counter_ns() + int(max(grace_period, 0.0) * 1e9)
        self._steps = [(min(due, limit), who, signum) for due, who, signum in self._steps]
        self._end = min(self._end, limit + int(REAP_TIME * 1e9))

    def advance(self, process_set: ProcSet) -> int | None:
        """
        Send the signals that are due.

        Returns:
            When to call again, in nanoseconds of the monotonic clock; None when all ranks have
            ended or have been given up.
        """
        if all(member.ended for member in self._members):
            return None
        now = time.perf_counter_ns()
        while self._steps and self._steps[0][0] <= now:
            _, members, signum = self._steps.pop(0)
            for member in members:
                member.signal(process_set, signum)
        if now >= self._end:
            return None
        return self._steps[0][0] if self._steps else self._end
