"""One rank as the launcher sees it: its process, its error queue, and what became of it."""

from __future__ import annotations

import time
from multiprocessing.process import BaseProcess

from flamespawn import _multiprocessing
from flamespawn._errors import (
    Fate,
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
)
from flamespawn._native import ProcSet
from flamespawn._platform import signal_name
from flamespawn._queues import ErrorSource
from flamespawn._report import Done, Exiting, Failed

# What one read takes from a report pipe, and what is read from one rank before the others get
# their turn.
_CHUNK = 1 << 18

_FAILURES = (Failed, Exiting)


class Member:
    """
    One rank.

    Attributes:
        index: the rank.
        ended: whether its process has ended and its status has been taken over.
        signals: the signals that the launcher has sent to it.
        failed_at: when it failed, in nanoseconds of the monotonic clock, or None. The rank's own
            time stamp where it made a report, otherwise the time at which its end was seen.
    """

    __slots__ = (
        "_exit_code",
        "_first_signal_at",
        "_popen",
        "_usage",
        "ended",
        "failed_at",
        "index",
        "pid",
        "process",
        "sentinel",
        "signals",
        "source",
    )

    def __init__(self, index: int, process: BaseProcess, source: ErrorSource) -> None:
        if process.pid is None:
            msg = f"processes[{index}] has not been started"
            raise ValueError(msg)
        self.index = index
        self.process = process
        self.pid: int = process.pid
        self.sentinel = process.sentinel
        self.source = source
        self.ended = False
        self.signals: list[int] = []
        self._first_signal_at: int | None = None
        self.failed_at: int | None = None
        self._exit_code: int | None = None
        self._popen = _multiprocessing.popen_of(process)
        self._usage = (False, 0, 0, 0)

    def watch(self, process_set: ProcSet) -> None:
        """Add this rank to the set that is waited for; its index there is its own."""
        sentinel = {} if _multiprocessing.is_child(self.process) else {"sentinel": self.sentinel}
        report = {"report": self.source.fd} if self.source.fd >= 0 else {}
        process_set.add(self.pid, **sentinel, **report)

    # ------------------------------------------------------------------------------------ events

    def on_readable(self, process_set: ProcSet) -> bool:
        """Read one chunk of the report; return whether there may be more at the moment."""
        source = self.source
        if source.fd < 0:
            return False
        got = process_set.read(self.index, source.buffer, _CHUNK)
        if got:
            source.parse()
        if got == 0 or source.final is not None or source.corrupt is not None:
            self.stop_reading(process_set)
            self._note_failure()
        return bool(got)

    def on_ended(self, process_set: ProcSet, exit_code: int | None) -> None:
        """
        Take over the exit code, and the rest of the report: all of it is in the pipe.

        This is on the way from the end of a rank to the return of `join`, where the processor's
        caches are cold: it does no more than it must.
        """
        source = self.source
        if source.fd >= 0:
            while self.on_readable(process_set):
                pass
            self.stop_reading(process_set)
        elif source.asked_at_end:
            source.finish()
        popen = self._popen
        if exit_code is None or popen.returncode is not None:
            exit_code = _multiprocessing.exit_code_taken_elsewhere(self.process, popen)
        else:
            popen.returncode = exit_code
        self._exit_code = exit_code
        self.ended = True
        if exit_code != 0 or not source.clean:
            self._note_failure()

    def stop_reading(self, process_set: ProcSet) -> None:
        if self.source.fd >= 0:
            process_set.forget_report(self.index)
            self.source.close()

    def finish(self, process_set: ProcSet) -> None:
        """Do what could wait until there is nothing more to wait for."""
        self.stop_reading(process_set)
        self._usage = process_set.usage(self.index)
        if self.ended:
            _multiprocessing.retire(self.process)

    def _note_failure(self) -> None:
        final = self.source.final
        if isinstance(final, _FAILURES):
            self.failed_at = final.time_ns
        elif self.failed_at is None and (
            (self.ended and not self.success) or self.source.corrupt is not None
        ):
            self.failed_at = time.monotonic_ns()

    # ------------------------------------------------------------------------------------- state

    @property
    def success(self) -> bool:
        """
        Whether it has ended well.

        A rank of ours must have said that it is done. Somebody else's process cannot say so; its
        exit code must be 0, and known to be.
        """
        source = self.source
        if not self.ended or not source.clean:
            return False
        return self._exit_code == 0 or (self._exit_code is None and source.must_report)

    @property
    def was_stopped(self) -> bool:
        """Whether the launcher ended it, rather than the rank itself or somebody else."""
        if self._first_signal_at is None or self.success:
            return False
        final = self.source.final
        if isinstance(final, _FAILURES):
            return final.time_ns > self._first_signal_at
        if self._exit_code is not None and self._exit_code < 0:
            return -self._exit_code in self.signals
        return True

    def signal(self, process_set: ProcSet, signum: int) -> None:
        """Send a signal, unless the process has ended."""
        now = time.monotonic_ns()
        if not self.ended and process_set.signal(self.index, signum):
            self.signals.append(signum)
            if self._first_signal_at is None:
                self._first_signal_at = now

    def fate(self) -> Fate:
        code = self._exit_code
        final = self.source.final
        core_dumped, user_ns, system_ns, max_rss = self._usage
        return Fate(
            index=self.index,
            pid=self.pid,
            error=(final.error_type or "an error") if isinstance(final, Failed) else None,
            exit_code=None if code is None or code < 0 else code,
            signal_name=signal_name(-code) if code is not None and code < 0 else None,
            core_dumped=core_dumped,
            ended=self.ended,
            stopped=self.was_stopped,
            done=isinstance(final, Done),
            user_time=user_ns / 1e9,
            system_time=system_ns / 1e9,
            max_rss=max_rss,
        )

    # --------------------------------------------------------------------------------- exception

    def exception(self) -> ProcessException:
        """Return a new exception that says how this rank failed."""
        final = self.source.final
        if isinstance(final, Failed):
            raised = ProcessRaisedException(
                f"\n\n-- Process {self.index} terminated with the following error:\n"
                f"{final.traceback}",
                self.index,
                self.pid,
                error_type=final.error_type,
                error_message=final.message,
                error_traceback=final.traceback,
            )
            raised.__cause__ = final.load_exception()
            return raised
        code = final.code if isinstance(final, Exiting) else self._exit_code
        name = signal_name(-code) if code is not None and code < 0 else None
        how = (
            "was reaped elsewhere, its exit status is unknown"
            if code is None
            else f"terminated with signal {name}"
            if name
            else f"terminated with exit code {code}"
        )
        exited = ProcessExitedException(
            f"process {self.index} {how}", self.index, self.pid, code, name
        )
        if isinstance(final, Exiting) and final.message:
            exited.add_note(f"Rank {self.index} exited with the message: {final.message}")
        if self.source.must_report and self.source.started is None:
            exited.add_note(
                f"Rank {self.index} ended before its function was called; "
                "the reason is on its stderr."
            )
        return exited
