"""What becomes of ranks that nobody has joined: at the launcher's exit, and with their context."""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from collections.abc import Sequence

from flamespawn import _multiprocessing
from flamespawn._deadline import Deadline
from flamespawn._errors import ProcessException
from flamespawn._forward import Forwarder
from flamespawn._lifetime import unjoined
from flamespawn._member import Member
from flamespawn._native import ProcSet


class EndsUnjoined:
    """The part of `ProcessContext` that ends ranks when nobody else does."""

    # Nothing is there to be ended before there is a set, and when all is over.
    _finished = True
    _are_ours = False
    _catch_up: bool
    _culprit: Member | None
    _ended: int
    _forwarder: Forwarder
    _members: Sequence[Member]
    _set: ProcSet
    _stop_requested: bool

    def pids(self) -> list[int]:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def _wait_for_end(self, deadline: Deadline, grace_period: float | None, enough: int) -> None:
        raise NotImplementedError

    def _exception(self, culprit: Member) -> ProcessException:
        raise NotImplementedError

    def _take_charge(self) -> None:
        """Begin to end the ranks when nobody else does."""
        self._finished = False
        # What others have started is theirs to end, unless they join it.
        self._are_ours = all(member.source.must_report for member in self._members)
        if self._are_ours:
            unjoined.add(self, EndsUnjoined._begin_to_stop, EndsUnjoined._stop_at_exit)

    def _begin_to_stop(self) -> bool:
        """Send SIGTERM, without waiting for what comes of it; return whether to go on."""
        if self._finished:
            return False
        self._stop_requested = True
        self._wait_for_end(time.perf_counter_ns(), None, len(self._members))
        return True

    def _stop_at_exit(self, at_once: bool) -> None:
        """Stop the ranks; show the failure that one of them had before."""
        if at_once:
            self.kill()
        self.stop()
        for member in self._members:
            if not member.ended:
                # Nobody can say how long it is stuck in the kernel.
                _multiprocessing.disown(member.process)
        if self._culprit is None:
            return
        if not self._culprit.was_stopped and sys.stderr is not None:
            traceback.print_exception(self._exception(self._culprit))
        stopped = sum(member.was_stopped for member in self._members)
        self._warn(f"{stopped} ranks were stopped because nobody had joined them")

    def __del__(self) -> None:
        if not self._finished:
            self._forwarder.release()
        if self._finished or not self._are_ours or not self._set.end():
            return
        if sys is None or sys.is_finalizing():
            # Modules may have been taken apart already. Nothing runs any more.
            return
        running = len(self._members) - self._ended
        self._stop_requested = self._catch_up = True
        self._wait_for_end(None, 0.0, len(self._members))
        self._warn(f"{running} ranks were killed because nobody refers to their context")

    def _warn(self, what: str) -> None:
        warnings.warn(f"{what}: pids {self.pids()}", ResourceWarning, stacklevel=3, source=self)
