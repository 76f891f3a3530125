"""Taking turns: of the threads that join one context, one waits in the kernel for all."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flamespawn._deadline import Deadline, has_passed, remaining


class Turn:
    """
    The right to wait for the ranks, held by one thread at a time.

    The other threads sleep until the holder gives it up, which it does as soon as something has
    changed. Then one of them takes over, unless all have what they wanted.
    """

    def __init__(self) -> None:
        self._held = threading.Lock()
        self._holder = 0
        self._changed = threading.Condition(threading.Lock())
        # Threads that want the turn and do not have it; changed under the condition's lock.
        self._waiting = 0

    def take(self, deadline: Deadline, satisfied: Callable[[], bool]) -> bool:
        """
        Wait until it is this thread's turn.

        Returns:
            True with the turn taken; False when somebody else has it and `satisfied()`, or at the
            deadline.

        Raises:
            RuntimeError: this thread has the turn, so that it would wait for itself; only a
                signal handler that runs during a join can get here.
        """
        if not self._held.acquire(blocking=False):
            if self._holder == threading.get_ident():
                msg = "join() was called by a signal handler while the same thread was joining"
                raise RuntimeError(msg)
            if not self._take_later(deadline, satisfied):
                return False
        self._holder = threading.get_ident()
        return True

    def _take_later(self, deadline: Deadline, satisfied: Callable[[], bool]) -> bool:
        with self._changed:
            # Before the look at who holds it; see give_up().
            self._waiting += 1
            try:
                while not self._held.acquire(blocking=False):
                    if satisfied() or has_passed(deadline):
                        return False
                    self._changed.wait(remaining(deadline))
            finally:
                self._waiting -= 1
        return True

    def give_up(self) -> None:
        """
        Pass on the turn that this thread has taken.

        On the way from the end of a rank to the return of `join`, and therefore quick if nobody
        waits: whoever comes counts itself before it tries to take the turn, and this looks at the
        count after having let it go. One of the two sees the other.
        """
        self._holder = 0
        self._held.release()
        if self._waiting:
            with self._changed:
                self._changed.notify_all()
