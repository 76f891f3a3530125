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
        self._condition = threading.Condition(threading.Lock())
        self._holder: int | None = None
        # Threads that want the turn and do not have it; changed under the lock.
        self._waiting = 0

    def take(self, deadline: Deadline, satisfied: Callable[[], bool]) -> bool:
        """
        Wait until it is this thread's turn.

        Returns:
            True with the turn taken; False as soon as `satisfied()`, or at the deadline.

        Raises:
            RuntimeError: this thread has the turn, so that it would wait for itself; only a
                signal handler that runs during a join can get here.
        """
        me = threading.get_ident()
        if self._holder == me:
            msg = "join() was called by a signal handler while the same thread was joining"
            raise RuntimeError(msg)
        with self._condition:
            # Before the look at the holder; see give_up().
            self._waiting += 1
            try:
                while not satisfied():
                    if self._holder is None:
                        self._holder = me
                        return True
                    if has_passed(deadline):
                        return False
                    self._condition.wait(remaining(deadline))
                return False
            finally:
                self._waiting -= 1

    def give_up(self) -> None:
        """
        Pass on the turn that this thread has taken.

        On the way from the end of a rank to the return of `join`, and therefore without the lock
        if nobody waits: whoever comes counts itself before it looks for the holder, and this looks
        for the count after having removed the holder. One of the two sees the other.
        """
        self._holder = None
        if self._waiting:
            with self._condition:
                self._condition.notify_all()
