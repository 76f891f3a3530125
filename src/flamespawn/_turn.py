"""Taking turns: of the threads that join one context, one waits in the kernel for all."""

from __future__ import annotations

import threading

from flamespawn._deadline import Deadline, remaining
from flamespawn._native import Turn


def wait_for_turn(turn: Turn, deadline: Deadline) -> None:
    """
    Sleep until whoever has the turn has given it up, or until the deadline.

    The turn may be taken by somebody else by then: look again. The baton is there before the look
    at the holder, who passes all batons on after having left; one of the two sees the other.

    Raises:
        RuntimeError: this thread has the turn, so that it would wait for itself; only a signal
            handler that runs during a join can get here.
    """
    if turn.holder == threading.get_ident():
        msg = "join() was called by a signal handler while the same thread was joining"
        raise RuntimeError(msg)
    baton = threading.Lock()
    baton.acquire()
    turn.add_baton(baton)
    if turn.holder is not None:
        seconds = remaining(deadline)
        baton.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))
