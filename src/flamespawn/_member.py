"""One rank as the launcher sees it: its process, its error queue, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

from flamespawn import _multiprocessing
from flamespawn._early_stderr import last_lines
from flamespawn._errors import (
    Fate,
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
)
from flamespawn._native import ProcSet
from flamespawn._platform import (
    KILL,
    STRONGER,
    is_child,
    is_crash,
    is_ending,
    job_of,
    signal_name,
)
from flamespawn._queues import ErrorSource
from flamespawn._report import Done, Exiting, Failed, Report
from flamespawn._stacks import split_crash

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
        signals: the signals that the launcher has sent to it to end it.
        out_of_memory: whether the system has likely killed it because memory was short.
        is_overdue: whether it was asked for its stacks, and the time for the answer is over.
        refused: why the system refused to signal it, or None.
        failed_at: when it failed, in nanoseconds of the monotonic clock, or None. The rank's own
            time stamp where it made a report. Otherwise the last time at which it is known to have
            been well: what others report because of its end comes after that.
    """

    __slots__ = (
        "_early_stderr",
        "_ended_at",
        "_exit_code",
        "_first_signal_at",
        "_is_dying",
        "_noticed_at",
        "_popen",
        "_question",
        "_silent_after",
        "_usage",
        "ended",
        "failed_at",
        "index",
        "is_overdue",
        "out_of_memory",
        "pid",
        "process",
        "refused",
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
        self.refused: str | None = None
        # The signal by which it was asked for its stacks.
        self._question = 0
        self.is_overdue = False
        self._first_signal_at: int | None = None
        # When it was last known to be well, if its report pipe then ended without a proper report
        # and before it was sent any signal.
        self._silent_after: int | None = None
        self._is_dying = False
        self.failed_at: int | None = None
        # Puts those in order that were last known to be well at the same time.
        self._noticed_at = source.ended_by
        self._exit_code: int | None = None
        self._ended_at: int | None = None
        self._early_stderr = b""
        self.out_of_memory = False
        self._popen = _multiprocessing.popen_of(process)
        self._usage = (False, 0, 0, 0)

    def watch(self, process_set: ProcSet) -> None:
        """Add this rank to the set that is waited for; its index there is its own."""
        report = self.source.fd
        if self._popen.returncode is not None:
            process_set.add(self.pid, report=report, over=True)
        elif is_child(self.process):
            process_set.add(self.pid, report=report)
        else:
            process_set.add(self.pid, report=report, sentinel=self.sentinel, job=self.job)

    # ------------------------------------------------------------------------------------ events

    def on_readable(self, process_set: ProcSet, well_at: int) -> bool:
        """
        Read one chunk of the report; return whether there may be more at the moment.

        Args:
            process_set: the set.
            well_at: when the rank was last known to be well, on the monotonic clock.
        """
        source = self.source
        if source.fd < 0:
            return False
        got = process_set.read(self.index, source.buffer, _CHUNK)
        self.on_read(process_set, well_at, at_end=not got)
        return bool(got)

    def on_read(self, process_set: ProcSet, well_at: int, *, at_end: bool = False) -> None:
        """Act on what has been read so far. Whatever cuts it short, it can be done again."""
        source = self.source
        if source.buffer:
            source.parse()
        if at_end or source.final is not None or source.corrupt is not None:
            # Somebody may have closed the pipe, and live on until the launcher stops him.
            if (
                source.must_report
                and source.final is None
                and not self.signals
                and self._silent_after is None
                and (source.corrupt is not None or is_ending(self.pid, otherwise=True))
            ):
                self._silent_after = max(well_at, source.well_at)
                self._noticed_at = self._noticed_at or time.perf_counter_ns()
            self.note_failure(well_at)
            self.stop_reading(process_set)

    def on_ended(self, process_set: ProcSet, exit_code: int | None, well_at: int) -> None:
        """
        Take over the exit code, and the rest of the report: all of it is in the pipe.

        This is on the way from the end of a rank to the return of `join`, where the processor's
        caches are cold: it does no more than it must. It can be done again from the beginning,
        because an exception of a signal handler may end it anywhere.
        """
        source = self.source
        if source.fd >= 0:
            while self.on_readable(process_set, well_at):
                pass
            self.stop_reading(process_set)
        elif source.asked_at_end:
            source.finish()
        popen = self._popen
        if exit_code is None:
            exit_code = _multiprocessing.exit_code_taken_elsewhere(
                self.process, popen, worth_waiting=source.final is None
            )
        else:
            popen.returncode = exit_code
        self._exit_code = exit_code
        if self._ended_at is None:
            self._ended_at = time.perf_counter_ns()
            if source.corrupt is None:
                # The ends of pipes need not come in the order in which the ranks have died.
                self._noticed_at = self._ended_at
        if exit_code != 0 or not source.clean:
            self.note_failure(well_at, ended=True)
        self.ended = True

    def stop_reading(self, process_set: ProcSet) -> None:
        if self.source.fd >= 0:
            process_set.forget_report(self.index)
            self.source.close()

    def finish(self, process_set: ProcSet) -> None:
        """Do what could wait until there is nothing more to wait for."""
        self.stop_reading(process_set)
        self._early_stderr = self.source.take_early_stderr()
        self._usage = _multiprocessing.usage_of(self._popen) or process_set.usage(self.index)
        if self.ended:
            _multiprocessing.retire(self.process)
        if not self.success:
            self.note_failure(time.perf_counter_ns(), ended=True)

    def note_failure(self, well_at: int, *, ended: bool = False) -> None:
        """Note whether, when and how it failed, by what is known now."""
        if self._own_report is not None:
            self.failed_at = self._own_report.time_ns
        elif self.source.corrupt is not None or (ended and not self._ended_well):
            if self._silent_after is not None:
                well_at = self._silent_after
            if self._noticed_at == 0:
                self._noticed_at = time.perf_counter_ns()
            if self.failed_at is None:
                self.failed_at = max(well_at, self.source.well_at)

    def note_dying(self, well_at: int) -> None:
        """Note whether it is dying without a word; *well_at* is as in `on_read`."""
        source = self.source
        speaks = source.final is not None or source.is_leaving or self._own_report is not None
        if speaks or self.signals or not source.must_report:
            return
        self._is_dying = self.ended or is_ending(self.pid, otherwise=False)
        if self._is_dying and self._silent_after is None:
            self._silent_after = max(well_at, source.well_at)
            self._noticed_at = self._noticed_at or time.perf_counter_ns()

    # ------------------------------------------------------------------------------------- state

    @property
    def success(self) -> bool:
        """
        Whether it has ended well.

        A rank of ours must have said that it is done. Somebody else's process cannot say so; its
        exit code must be 0, and known to be.
        """
        return self.ended and self._ended_well

    @property
    def _ended_well(self) -> bool:
        source = self.source
        return source.clean and (
            self._exit_code == 0 or (self._exit_code is None and source.must_report)
        )

    @property
    def _own_report(self) -> Report | None:
        """What the rank has said of its failure, or that it has failed; None if it has not."""
        final = self.source.final
        return final if isinstance(final, _FAILURES) else self.source.failing

    @property
    def is_describing(self) -> bool:
        """Whether it has said that it has failed, and may still say how."""
        return self.source.failing is not None and self.source.final is None

    def may_have_died_before(self, other: Member) -> bool:
        """Whether it was dying, without a report, when the failure of another one was known."""
        silent = self._is_dying and self._own_report is None
        return silent and self.source.well_at <= (other.failed_at or 0)

    @property
    def failure_order(self) -> tuple[int, int]:
        """Sort key that puts the first failure first."""
        return (self.failed_at or 0, self._noticed_at)

    @property
    def was_stopped(self) -> bool:
        """Whether the launcher ended it, rather than the rank itself or somebody else."""
        if self._question and self._exit_code == -self._question:
            # The function has taken away what answers.
            return True
        if self._first_signal_at is None or self._silent_after is not None or self.success:
            return False
        if self._own_report is not None:
            return self._own_report.time_ns > self._first_signal_at
        if self._exit_code is not None and self._exit_code < 0:
            return -self._exit_code in self.signals
        return True

    @property
    def was_killed_by_others(self) -> bool:
        """Whether it has ended by a SIGKILL that the launcher has not sent."""
        return self._exit_code == -KILL and not self.was_stopped

    @property
    def can_be_asked(self) -> bool:
        """Whether it can be asked for its stacks: what closed the pipe may be another program."""
        source = self.source
        is_there = source.fd >= 0 and not self.is_describing
        return bool(is_there and source.started and source.started.question)

    @property
    def owes_answer(self) -> bool:
        """Whether it was asked for its stacks and may still answer in time."""
        if self._question == 0 or self.is_overdue or self.source.answered:
            return False
        return not self.ended and self.source.fd >= 0

    def ask(self, process_set: ProcSet) -> None:
        """Ask the rank for its stacks. A refusal is told when it is to be stopped."""
        started = self.source.started
        # Somebody else may have asked before.
        self.source.stacks, self.source.answered = b"", False
        try:
            if started is not None and process_set.signal(self.index, started.question):
                self._question = started.question
        except OSError as error:
            self.refused = str(error)

    def expect_no_answer(self, _: ProcSet) -> None:
        """Note that the time for an answer is over."""
        self.is_overdue = self.owes_answer

    def signal(self, process_set: ProcSet, signum: int) -> None:
        """Send a signal, unless the process has ended. A refusal is told with the fate."""
        now = time.perf_counter_ns()
        try:
            sent = not self.ended and process_set.signal(self.index, signum)
        except OSError as error:
            if signum in STRONGER:
                self.signal(process_set, STRONGER[signum])
                return
            # The others are to be signalled all the same.
            self.refused = str(error)
            return
        if sent:
            self.signals.append(signum)
            if self._first_signal_at is None:
                self._first_signal_at = now

    @property
    def job(self) -> int:
        """The job of the system that holds it and what it has started, -1 where there is none."""
        return job_of(self._popen)

    def fate(self) -> Fate:
        code = self._exit_code
        final = self.source.final
        core_dumped, user_ns, system_ns, max_rss = self._usage
        asked, crash = split_crash(self.source.stacks)
        crashed = code is not None and is_crash(code)
        return Fate(
            index=self.index,
            pid=self.pid,
            error=(final.error_type or "an error") if isinstance(final, Failed) else None,
            exit_code=None if code is None or code < 0 else code,
            signal_name=signal_name(-code) if code is not None and code < 0 else None,
            core_dumped=core_dumped,
            ended=self.ended,
            refused=self.refused,
            stopped=self.was_stopped,
            done=isinstance(final, Done),
            out_of_memory=self.out_of_memory,
            run_time=self._seconds_until(self._ended_at),
            failed_after=self._seconds_until(None if self.success else self.failed_at),
            user_time=user_ns / 1e9,
            system_time=system_ns / 1e9,
            max_rss=max_rss,
            # A process that the rank has forked can crash as well.
            stack=(crash if crashed else "") or asked or None,
            answered=(self.source.answered or not self.is_overdue) if self._question else None,
        )

    def _seconds_until(self, when: int | None) -> float | None:
        return None if when is None else max(when - self.source.started_at, 0) / 1e9

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
        if name is not None:
            how = f"terminated with signal {name}"
        elif code is not None:
            how = f"terminated with exit code {code}"
        elif self.ended:
            how = "was reaped elsewhere, its exit status is unknown"
        else:
            how = "could not be ended and was abandoned"
        exited = ProcessExitedException(
            f"process {self.index} {how}", self.index, self.pid, code, name
        )
        for note in self._notes():
            exited.add_note(note)
        return exited

    def _notes(self) -> Iterator[str]:
        source = self.source
        if isinstance(source.final, Exiting) and source.final.message:
            yield f"Rank {self.index} exited with the message: {source.final.message}"
        if self.out_of_memory:
            yield f"Rank {self.index} was likely killed because memory was short."
        if source.corrupt is not None:
            yield f"What rank {self.index} reported could not be read: {source.corrupt}."
        elif self.is_describing:
            yield f"Rank {self.index} had raised an error, and ended before it had described it."
        elif source.must_report and source.started is None:
            early = f"Rank {self.index} ended before its function was called"
            if self._early_stderr:
                yield f"{early}. The end of its stderr:\n{last_lines(self._early_stderr)}"
            else:
                yield f"{early}; the reason is on its stderr."
