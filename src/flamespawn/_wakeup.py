"""
Making signals interrupt a wait at once.

Facts about signals in CPython: the C handler only sets a flag, and Python code runs later in the
main thread. A signal that arrives after the last look at the flag, but before the wait has
reached the kernel, sets the flag and interrupts nothing; so does one that the kernel delivers to
another thread. `signal.set_wakeup_fd` closes both holes: the C handler also writes a byte to that
descriptor, which the wait watches. It can be set in the main thread only, which is the only one
that needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from flamespawn._native import ProcSet, call_while_signals_wake

P = ParamSpec("P")
T = TypeVar("T")


def call_interruptibly(
    process_set: ProcSet, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """
    Call a function; any signal with a Python handler wakes a `process_set.wait` that it makes.

    A descriptor that somebody else has set, such as an asyncio loop's, is put back at once: its
    bytes mean something to its owner. Then a signal still interrupts the wait, but for the holes
    above.
    """
    if threading.get_ident() == threading.main_thread().ident:
        return call_while_signals_wake(process_set, function, *args, **kwargs)
    return function(*args, **kwargs)
