"""
Error queues: where the launcher learns what happened in a rank.

There are two kinds. A `ReportQueue` is the launcher's end of a report pipe of ours. Any other
queue was made by the user with `multiprocessing`; a `ForeignQueue` reads from it. Both are fed
from a buffer that the context fills while it waits, so neither ever blocks.
"""

from __future__ import annotations

import pickle
import queue
import time
from collections.abc import Callable
from typing import Any, Protocol

from flamespawn._native import Fd
from flamespawn._platform import reader_fileno, received_object
from flamespawn._report import (
    MAX_BODY,
    Answered,
    CorruptReportError,
    Done,
    Failed,
    Failing,
    Report,
    Returned,
    Started,
    decode,
    dump_end,
)

# The stacks of a hundred threads, which is where faulthandler ends, hardly ever need as much.
_MAX_STACKS = 1 << 20


class ErrorSource(Protocol):
    """
    What the context needs of an error queue.

    Attributes:
        fd: the descriptor to read from, or -1.
        buffer: what was read and not yet understood.
        started_at: when the start of the rank began, or when the context was made by hand.
        started, final: the reports that have arrived.
        stacks: what faulthandler has written in the rank, or the latest part of it; may be reset.
        answered: whether the rank has reported that its interpreter took notice; may be reset.
        is_leaving: whether the rank has reported, or begun to, that its function has ended.
        failing: the report that the function has raised, if it has come.
        corrupt: why the rest cannot be understood, or None.
        must_report: whether a rank that has not reported has failed.
        clean: whether what has arrived, or has not, is what a success looks like.
        asked_at_end: whether `finish` has something to do.
        well_at: when the rank was last known to be well before anybody waited for it.
        ended_by: when it was found to have ended, if that was before anybody waited for it, or 0.
    """

    fd: int
    buffer: bytearray
    started_at: int
    started: Started | None
    is_leaving: bool
    failing: Report | None
    final: Report | None
    stacks: bytes
    answered: bool
    corrupt: str | None
    must_report: bool
    clean: bool
    asked_at_end: bool
    well_at: int
    ended_by: int

    def parse(self) -> None:
        """Look at what was added to `buffer`."""

    def finish(self) -> None:
        """Take what can only be had once the rank has ended."""

    def take_early_stderr(self) -> bytes:
        """
        Return what the rank has written on its stderr before it had the launcher's.

        It is shown there now, and returned once.
        """

    def close(self) -> None:
        """Let go of the descriptor."""

    def close_in_fork(self) -> None:
        """Let go of what a forked process has inherited."""


class ReportQueue:
    """
    The launcher's end of a rank's report pipe, and the view on it that users see.

    `get` and `empty` show what has arrived while the context was joined; reading takes nothing
    away, because a later `join` raises the same failure again.
    """

    must_report = True
    asked_at_end = False

    def __init__(self, pipe: Fd) -> None:
        self.fd = pipe.fileno()
        self._pipe = pipe
        self.clean = False
        self._has_seen_text = False
        self.early_stderr: Callable[[], bytes] | None = None
        self.buffer = bytearray()
        self.started_at = time.perf_counter_ns()
        self.started: Started | None = None
        self.is_leaving = False
        self.failing: Report | None = None
        self.final: Report | None = None
        self.stacks = b""
        self.answered = False
        self.corrupt: str | None = None
        self.well_at = time.perf_counter_ns()
        self.ended_by = 0

    def empty(self) -> bool:
        """Return whether no failure with a traceback has been reported."""
        return not isinstance(self.final, Failed)

    def get(self) -> str:
        """
        Return the traceback of the rank's failure. Does not wait.

        Raises:
            queue.Empty: no failure with a traceback has been reported.
        """
        if not isinstance(self.final, Failed):
            raise queue.Empty
        return self.final.traceback

    def parse(self) -> None:
        position = 0
        try:
            while self.final is None:
                position, is_whole = self._take_stacks(position)
                decoded = decode(self.buffer, position) if is_whole else None
                if decoded is None:
                    # Whoever says the same for ever is not to fill the memory with it.
                    del self.buffer[:position]
                    # Only what a rank says in the end is too long for one write.
                    self.is_leaving = self.is_leaving or (is_whole and bool(self.buffer))
                    return
                report, end = decoded
                if isinstance(report, Started):
                    self.started = report
                elif isinstance(report, Returned):
                    self.is_leaving = True
                elif isinstance(report, Failing):
                    self.is_leaving = True
                    self.failing = report
                elif isinstance(report, Answered):
                    self.answered = True
                else:
                    self.is_leaving = True
                    self.final = report
                    self.clean = isinstance(report, Done)
                position = end
        except CorruptReportError as error:
            self.corrupt = str(error)
        self.buffer = bytearray()

    def _take_stacks(self, position: int) -> tuple[int, bool]:
        """
        Take the text that comes before the next frame.

        Returns:
            Where the next frame starts, and whether all of the text has come.
        """
        end = dump_end(self.buffer, position, is_inside=self._has_seen_text)
        if end is not None and end > position:
            self._has_seen_text = True
            self.stacks = (self.stacks + self.buffer[position:end])[-_MAX_STACKS:]
            del self.buffer[:end]
            position = 0
        return position, end is not None

    def finish(self) -> None:
        """Do nothing: all that a rank of ours says comes through the pipe."""

    def take_early_stderr(self) -> bytes:
        take, self.early_stderr = self.early_stderr, None
        return b"" if take is None else take()

    def close(self) -> None:
        self.fd = -1
        self._pipe.close()

    def close_in_fork(self) -> None:
        """Let go of the copy that a forked process has."""
        self.close()


def _unpickled(data: bytes) -> object:
    # As trusted as the queue's own get(), which does the same.
    try:
        return pickle.loads(data)
    except Exception as error:  # noqa: BLE001 - the rank has failed, whatever it put
        return f"<what is in the error queue cannot be unpickled: {error!r}>\n"


class ForeignQueue:
    """
    An error queue that the user made, or None for no queue.

    Something in such a queue means that the rank failed; it is shown as the traceback. The bytes
    are read as they come, because a rank that puts a long text blocks until somebody reads it, and
    because `get()` would block for ever on a rank that was killed in the middle of it.
    """

    must_report = False

    def __init__(self, user_queue: Any) -> None:
        self._queue = user_queue
        self.fd = reader_fileno(user_queue)
        # A queue that has no pipe of its own, such as a manager's.
        self.asked_at_end = self.fd < 0 and user_queue is not None
        self.clean = True
        self.buffer = bytearray()
        self.started_at = time.perf_counter_ns()
        self.started: Started | None = None
        self.is_leaving = False
        self.failing: Report | None = None
        self.final: Report | None = None
        self.stacks = b""
        self.answered = False
        self.corrupt: str | None = None
        self.well_at = time.perf_counter_ns()
        self.ended_by = 0

    def parse(self) -> None:
        """Take the first object out of the framing of `multiprocessing.connection`."""
        if self.final is not None:
            return
        size, data = received_object(self.buffer)
        if not 0 <= size <= MAX_BODY:
            self.corrupt = f"an object of {size} bytes in the error queue"
            self.clean = False
        elif data is not None:
            self._fail_with(_unpickled(data))
            self.buffer = bytearray()

    def finish(self) -> None:
        """Ask the queue whether something is in it. It may be gone, as a manager's can be."""
        try:
            if self.final is None and not self._queue.empty():
                self._fail_with(getattr(self._queue, "get_nowait", self._queue.get)())
        except queue.Empty:
            return
        except Exception as error:  # noqa: BLE001 - an error queue that fails must not hide more
            self.corrupt = f"its error queue failed with {error!r}"
            self.clean = False

    def _fail_with(self, error: object) -> None:
        self.clean = False
        self.is_leaving = True
        self.final = Failed(
            rank=-1,
            pid=-1,
            time_ns=time.perf_counter_ns(),
            error_type=None,
            message=None,
            traceback=str(error),
        )

    def take_early_stderr(self) -> bytes:
        """Return nothing: the rank has had the launcher's from the beginning."""
        return b""

    def close(self) -> None:
        """Stop reading. The queue is the user's and stays open."""
        self.fd = -1

    close_in_fork = close


def source_of(error_queue: object) -> ErrorSource:
    return error_queue if isinstance(error_queue, ReportQueue) else ForeignQueue(error_queue)
