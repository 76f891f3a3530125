"""Reaching ranks from signal handlers, and from threads other than the one that waits for them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from flamespawn import _native
from flamespawn._member import Member


class Signalling:
    """
    The way to the ranks that needs no turn; it ends when their set is closed.

    Signal handlers may come back to it, also where they have interrupted it.

    Args:
        process_set: the set.
        members: the ranks.
    """

    def __init__(self, process_set: _native.ProcSet, members: Sequence[Member]) -> None:
        self._set = process_set
        self._members = members
        self._lock = threading.RLock()

    def send(self, signum: int) -> None:
        """Send a signal to all ranks that run; what it does to them is the launcher's doing."""
        _native.call_locked(self._lock, self._send, signum)

    def forward(self, signum: int, *, ends_ranks: bool) -> None:
        """Send on a signal that the launcher has got."""
        _native.call_locked(self._lock, self._send if ends_ranks else self._pass_on, signum)
        self.wake()

    def wake(self) -> None:
        """Have whoever waits for the ranks look at what is to be done."""
        _native.call_locked(self._lock, self._wake)

    def close(self) -> None:
        """Close the set."""
        _native.call_locked(self._lock, self._set.close)

    def _send(self, signum: int) -> None:
        if not self._set.closed:
            for member in self._members:
                member.signal(self._set, signum)

    def _pass_on(self, signum: int) -> None:
        if not self._set.closed:
            for member in self._members:
                # Whatever follows is the rank's own doing.
                try:
                    self._set.signal(member.index, signum)
                except OSError as error:
                    member.refused = str(error)

    def _wake(self) -> None:
        if not self._set.closed:
            self._set.wake()
