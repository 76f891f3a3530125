"""
Calling what must not be cut short by a signal handler that raises.

Facts about CPython: handlers are called between any two bytecodes of the main thread. Where the
standard library forks, or asks its fork server for a process, an exception of a handler can fall
between the birth of the process and the line that keeps its pid; then nobody knows of it any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from flamespawn._lifetime import call_after_fork
from flamespawn._native import HeldSignals

T = TypeVar("T")


def call_undisturbed(function: Callable[[], T]) -> T:
    """
    Return `function()`; signal handlers that are due meanwhile are called after it.

    A signal that comes again ten seconds later has its handler called: the function may be stuck.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return function()
    held = HeldSignals()
    call_after_fork(held, HeldSignals.release_in_fork)
    return held.call(function)
