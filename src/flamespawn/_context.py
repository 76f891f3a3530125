"""Waiting for ranks, and what follows from how they end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from flamespawn import _multiprocessing, _native
from flamespawn._deadline import (
    Deadline,
    after,
    check_seconds,
    check_timeout,
    earlier,
    has_passed,
)
from flamespawn._errors import ProcessException
from flamespawn._forward import Forwarder, Preemption, check_signals
from flamespawn._job import Job
from flamespawn._lifetime import call_after_fork
from flamespawn._member import Member
from flamespawn._memory import MemoryWatch
from flamespawn._platform import KILL, STOP, features
from flamespawn._queues import source_of
from flamespawn._signalling import Signalling
from flamespawn._stacks import describe
from flamespawn._teardown import DEFAULT_GRACE_PERIOD, Teardown
from flamespawn._turn import wait_for_turn
from flamespawn._unjoined import EndsUnjoined
from flamespawn._verdict import find_culprit, note_dying
from flamespawn._wakeup import call_interruptibly


class ProcessContext(EndsUnjoined):
    """
    A group of ranks that run, and are joined, together.

    `spawn` and `start_processes` return one with `join=False`. It can also be made by hand from
    processes that `multiprocessing` has started, by any start method.

    Used as a context manager, it joins all ranks at the end of the block; when the block raises,
    it stops them instead and lets the exception pass.

    Ranks of `spawn` and `start_processes` do not outlive their context: at the exit of the launcher
    those that run are stopped, and when nobody refers to the context any more they are killed. Both
    give a `ResourceWarning`. Processes that were started by hand are left to `multiprocessing`.

    All methods may be called from any thread of the process that started the ranks.

    Args:
        processes: started processes; rank *i* is `processes[i]`.
        error_queues: for each process a queue of `multiprocessing` that it puts a traceback into
            when it fails, or None. Reading from them is the context's business from now on.
        grace_period: seconds between SIGTERM and SIGKILL when ranks have to be stopped.
        forward_signals: the signals to be forwarded to the ranks while they run, of SIGTERM,
            SIGHUP, SIGUSR1 and SIGUSR2; see `start_processes`.

    Attributes:
        processes: the processes.
        error_queues: the queues; those of ranks that `start_processes` has started have `empty()`
            and `get()`, which never block and take nothing away.
        sentinels: index of the rank for each `Process.sentinel`, of the ranks not yet joined.

    Raises:
        TypeError, ValueError: the arguments do not fit; the message names which.
        RuntimeError: there are signals to be forwarded, and this is not the main thread.
    """

    # Set where the ranks have been started by this package.
    job: Job | None = None

    def __init__(
        self,
        processes: Sequence[BaseProcess],
        error_queues: Sequence[Any],
        *,
        grace_period: float = DEFAULT_GRACE_PERIOD,
        forward_signals: Sequence[int] | Forwarder = (),
    ) -> None:
        if not processes:
            msg = "processes must not be empty"
            raise ValueError(msg)
        if len(error_queues) != len(processes):
            msg = f"error_queues has {len(error_queues)} entries for {len(processes)} processes"
            raise ValueError(msg)
        self.processes = processes
        self.error_queues = error_queues
        sources = [source_of(error_queue) for error_queue in error_queues]
        used = [source.fd for source in sources if source.fd >= 0]
        if len(set(used)) != len(used):
            msg = "error_queues must be different queues, one for each process"
            raise ValueError(msg)
        self._members = [
            Member(index, process, source)
            for index, (process, source) in enumerate(zip(processes, sources))
        ]
        self.sentinels = {member.sentinel: member.index for member in self._members}
        self._owner = os.getpid()
        self._turn = _native.Turn()
        self._teardown: Teardown | Preemption | None = None
        self._stop_requested = False
        self._grace_period = check_seconds("grace_period", grace_period)
        if not isinstance(forward_signals, Forwarder):
            # Those that come while ranks are being started need one before the context.
            forward_signals = Forwarder(check_signals(forward_signals))
            forward_signals.install()
        self._forwarder = forward_signals
        self._ended = 0
        self._failed = False
        self._dying_noted = False
        # The stored outcome; the exception is made anew for each join that raises it.
        self._culprit: Member | None = None
        # Whatever has not ended was well when the wait before the last one began.
        self._well_at = self._waited_at = 0
        # Events may have been taken from the set without having been acted on.
        self._catch_up = False
        self._memory = MemoryWatch()
        self._set = _native.ProcSet(features())
        self._signalling = Signalling(self._set, self._members)
        call_after_fork(self, ProcessContext._abandon)
        try:
            for member in self._members:
                member.watch(self._set)
            self._forwarder.attach(self._forward)
        except BaseException:
            self._forwarder.release()
            self._set.close()
            raise
        self._take_charge()

    def __repr__(self) -> str:
        running = len(self._members) - self._ended
        return f"<{type(self).__name__}: {running} of {len(self._members)} ranks running>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stop_because_of(error)
            return
        try:
            self._wait_for_end(None, None, len(self._members))
            self._outcome()
        except BaseException as interrupt:
            self._stop_because_of(interrupt)
            raise

    def _stop_because_of(self, error: BaseException) -> None:
        """Stop all ranks; of two interrupts the first passes, and the second has hurried it."""
        try:
            self.stop()
        except KeyboardInterrupt:
            if not isinstance(error, KeyboardInterrupt):
                raise

    # ---------------------------------------------------------------------------------- public

    def pids(self) -> list[int]:
        """Return the process ids, in the order of the ranks."""
        return [member.pid for member in self._members]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """
        Wait until at least one more rank has ended.

        On the first failure, all other ranks are stopped: SIGTERM, and SIGKILL for those that are
        left when the grace period is over. The failure counts from the moment at which the rank
        reports it, not from its exit. A time-out that ends before that is done ends this call;
        the next one goes on.

        Args:
            timeout: seconds; None waits without limit, zero and less do not block. Bounds the
                whole call.
            grace_period: seconds between SIGTERM and SIGKILL if a failure makes them necessary;
                by default the context's.

        Returns:
            True when all ranks have been joined. False when some remain.

        Raises:
            ProcessRaisedException: a rank's function raised.
            ProcessExitedException: a rank ended, by a signal or an exit, without having completed
                its function, or nobody knows how it ended.
            TypeError, ValueError: an argument is not a number of seconds.
            RuntimeError: this is not the process that started the ranks.

        The exception names the rank that failed first. Every later `join` raises the same.
        `KeyboardInterrupt` and other exceptions of signal handlers pass at once and leave the
        ranks running; `stop`, `kill` and the `with` statement end them.
        """
        self._check_owner()
        deadline = None if timeout is None else after(check_timeout("timeout", timeout))
        if grace_period is not None:
            grace_period = check_seconds("grace_period", grace_period)
        self._wait_for_end(deadline, grace_period, self._ended + 1)
        return self._finished and self._outcome()

    def terminate(self) -> None:
        """
        Send SIGTERM to all ranks that are running. Does not wait.

        A rank that ends by it has not completed: `join` raises for it.
        """
        self._signal_all(STOP)

    def kill(self) -> None:
        """Send SIGKILL to all ranks that are running. Does not wait; see `terminate`."""
        self._signal_all(KILL)

    def stop(self) -> None:
        """
        End all ranks and wait for that: SIGTERM, and SIGKILL when the grace period is over.

        Does not raise for how they ended; a later `join` does, because they have not completed.
        A `join` in another thread stops them on behalf of this call, and raises. In a signal
        handler that runs during a `join`, this returns at once, and the `join` does the same.
        A `KeyboardInterrupt` during this call kills them at once, and passes when they are gone.
        """
        self._check_owner()
        self._stop_requested = True
        self._signalling.wake()
        if self._turn.holder == threading.get_ident():
            return
        try:
            self._wait_for_end(None, None, len(self._members))
        except KeyboardInterrupt:
            self.kill()
            self._wait_for_end(None, 0.0, len(self._members))
            raise

    def _signal_all(self, signum: int) -> None:
        self._check_owner()
        self._signalling.send(signum)

    def _forward(self, signum: int) -> None:
        """Pass on a signal that the launcher has got. Called by its handler."""
        self._signalling.forward(signum, ends_ranks=self._forwarder.ended_by is not None)

    # --------------------------------------------------------------------------------- waiting

    def _wait_for_end(self, deadline: Deadline, grace_period: float | None, enough: int) -> None:
        """Wait until *enough* ranks have ended, in turn with other threads."""
        while True:
            if self._turn.call(self._advance, deadline, grace_period, enough):
                return
            if self._finished or (self._ended >= enough and not self._stopping):
                return
            if deadline is not None and has_passed(deadline):
                return
            wait_for_turn(self._turn, deadline)

    @property
    def _stopping(self) -> bool:
        return self._stop_requested or self._teardown is not None

    def _advance(self, deadline: Deadline, grace_period: float | None, enough: int) -> None:
        """Wait until enough ranks have ended or, once one has failed, until all are stopped."""
        if self._finished:
            return
        if self._teardown is not None and grace_period is not None:
            self._teardown.hasten(grace_period)
        if self._catch_up:
            self._look_at_all()
        if call_interruptibly(self._set, self._wait, deadline, grace_period, enough):
            self._finish()

    def _wait(self, deadline: Deadline, grace_period: float | None, enough: int) -> bool:
        """Do the waiting of `_advance`; return whether there is nothing more to wait for."""
        looked = drained = False
        while True:
            step = None
            if self._teardown is not None:
                step = self._teardown.advance(self._set)
                if step is None:
                    return self._end_descendants(deadline)
            elif self._forwarder.ended_by is not None:
                began = self._forwarder.ended_by[1]
                grace = self._grace_period if grace_period is None else grace_period
                self._look_at_descendants()
                self._teardown = Preemption(self._members, began, grace)
                continue
            elif self._failed or self._stop_requested:
                if drained:
                    grace = self._grace_period if grace_period is None else grace_period
                    self._look_at_descendants()
                    ask = not self._stop_requested
                    self._teardown = Teardown(self._members, grace, ask=ask)
                    continue
                # What the kernel knows already may be the first failure.
                step = 0
            elif self._ended == len(self._members):
                return True
            elif self._ended >= enough:
                return False
            if looked and step != 0 and deadline is not None and has_passed(deadline):
                return False
            # Whatever did not end in the last wait was well when that began.
            self._well_at, self._waited_at = self._waited_at, time.perf_counter_ns()
            self._catch_up = True
            events = self._set.wait(deadline if step is None else earlier(deadline, step))
            self._act_on(events)
            self._catch_up = False
            looked = True
            drained = not events

    def _look_at_descendants(self) -> None:
        """Remember what ranks have started, before they are gone."""
        if self.job is not None:
            self.job.look(self._members)

    def _end_descendants(self, deadline: Deadline) -> bool:
        """End what failed and stopped ranks have started; return whether that is done."""
        if self.job is None:
            return True
        members = [member for member in self._members if not member.success]
        jobs = [member.job for member in members if member.job >= 0]
        return self.job.end([member.index for member in members], deadline, jobs)

    def _act_on(self, events: list[tuple[int, int, int | None]]) -> None:
        for kind, index, exit_code in events:
            member = self._members[index]
            if kind == _native.ENDED:
                if not member.ended:
                    member.on_ended(self._set, exit_code, self._well_at)
                    self.sentinels.pop(member.sentinel, None)
                    self._ended += 1
            elif kind == _native.READABLE:
                member.on_readable(self._set, self._well_at)
            if member.failed_at is not None:
                self._failed = True
        self._note_dying()

    def _note_dying(self) -> None:
        """Find the ranks that are dying when the first failure is known."""
        if self._failed and not self._dying_noted:
            note_dying(self._members, self._well_at)
            self._dying_noted = True

    def _look_at_all(self) -> None:
        """Find out all that was being acted on when an exception cut it short."""
        for member in self._members:
            if member.source.fd >= 0:
                member.on_read(self._set, self._well_at)
            if not member.ended and self._set.ended(member.index):
                member.on_ended(self._set, self._set.exit_code(member.index), self._well_at)
            if member.ended:
                self.sentinels.pop(member.sentinel, None)
            member.note_failure(self._well_at, ended=member.ended)
        self._ended = sum(member.ended for member in self._members)
        self._failed = any(member.failed_at is not None for member in self._members)
        self._note_dying()
        self._catch_up = False

    # --------------------------------------------------------------------------------- failure

    def _finish(self) -> None:
        """Store the outcome and let go of everything that the system lent."""
        for member in self._members:
            member.finish(self._set)
        self._memory.find_killed(self._members)
        self._culprit = find_culprit(self._members)
        self._forwarder.release()
        self._finished = True
        if self.job is not None:
            self.job.close()
        self._signalling.close()

    def _outcome(self) -> bool:
        """Return True, or raise the stored failure."""
        culprit = self._culprit
        preempted = self._forwarder.exit()
        if preempted is not None:
            own = culprit is not None and not culprit.was_stopped
            raise preempted from self._exception(culprit) if culprit and own else None
        if culprit is not None:
            raise self._exception(culprit)
        return True

    def _exception(self, culprit: Member) -> ProcessException:
        error = culprit.exception()
        error.fates = tuple(member.fate() for member in self._members)
        left = self.job.describe_left() if self.job else None
        for note in (*describe(error.fates, culprit.index), left):
            if note:
                error.add_note(note)
        return error

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            msg = f"these ranks belong to process {self._owner}, this is process {os.getpid()}"
            raise RuntimeError(msg)

    def _abandon(self) -> None:
        """Let go of what a forked process has inherited: its parent's ranks are not its own."""
        self._set.abandon()
        for member in self._members:
            member.source.close_in_fork()
            _multiprocessing.disown(member.process)
