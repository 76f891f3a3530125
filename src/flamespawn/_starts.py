"""The two ways in which ranks are started, and how a start that fails is undone."""

from __future__ import annotations

import contextlib
import functools
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from flamespawn import _fork_server, _multiprocessing, _native, _rank
from flamespawn._context import ProcessContext
from flamespawn._early_stderr import open_early_stderr
from flamespawn._forward import Forwarder
from flamespawn._job import GuardOrder, Job
from flamespawn._launch import Launch
from flamespawn._lifetime import call_after_fork
from flamespawn._mp_context import SpawnProcess
from flamespawn._native import Fd, call_or_undo, open_pipe
from flamespawn._payload import Payload
from flamespawn._platform import (
    LauncherPipe,
    close_lost_pipes,
    features,
    make_sure_of_descriptors,
    sendable,
)
from flamespawn._queues import ReportQueue
from flamespawn._teardown import REAP_TIME
from flamespawn._undisturbed import call_undisturbed


class Start:
    """
    The start of ranks: their processes so far, and their error queues.

    Args:
        fn, args, daemon: as for `start_processes`.
    """

    def __init__(self, fn: Callable[..., object], args: Sequence[Any], *, daemon: bool) -> None:
        self._fn = fn
        self._args = tuple(args)
        self._daemon = daemon
        self._job = Job()
        self.processes: list[BaseProcess] = []
        self.queues: list[ReportQueue] = []
        self._options: dict[str, Any] = {}
        self._forwarder: Forwarder | None = None
        self._context: ProcessContext | None = None

    def run(
        self, nprocs: int, *, join: bool, grace_period: float, signals: Sequence[signal.Signals]
    ) -> ProcessContext | None:
        """
        Start *nprocs* ranks; with *join* wait for them, and otherwise return their context.

        Whatever it raises, no rank is left then. In between two lines of Python, even after the
        last one, an exception of a signal handler may come; see `_native.call_or_undo`.
        """
        self._options["grace_period"] = grace_period
        return call_or_undo(functools.partial(self._run, nprocs, signals, join=join), self.undo)

    def _run(
        self, nprocs: int, signals: Sequence[signal.Signals], *, join: bool
    ) -> ProcessContext | None:
        self._forwarder = self._options["forward_signals"] = Forwarder(signals)
        self._forwarder.install()
        self._start(nprocs)
        context = self._make_context(self.processes, self.queues)
        context.job = self._job
        if not join:
            return context
        with context:
            return None

    def _start(self, nprocs: int) -> None:
        """Start *nprocs* ranks."""
        raise NotImplementedError

    def _make_context(
        self, processes: Sequence[BaseProcess], queues: Sequence[ReportQueue]
    ) -> ProcessContext:
        self._context = ProcessContext(processes, queues, **self._options)
        return self._context

    def _open_report(self) -> Fd:
        """Open the report pipe of the next rank; return its write end."""
        read_end, write_end = open_pipe()
        queue = ReportQueue(read_end)
        # A sibling that is forked later must not hold what belongs to the launcher.
        call_after_fork(queue, ReportQueue.close_in_fork)
        self.queues.append(queue)
        return write_end

    def undo(self, at_once: bool) -> None:
        """
        End the ranks that are still running; does nothing the second time.

        Args:
            at_once: without grace, because another exception has cut this short before.
        """
        try:
            # An exit status that is being collected would be lost to an interrupt.
            running = call_undisturbed(self._running)
            if self._context is None and running:
                processes, queues = zip(*running, strict=True)
                # What kept the next rank from starting, such as a limit on descriptors, may keep
                # a context from being made. Then they are killed below.
                with contextlib.suppress(OSError):
                    self._make_context(processes, queues)
            if self._context is not None:
                if at_once:
                    self._context.kill()
                self._context.stop()
        finally:
            # This needs nothing, and does nothing after a stop.
            self._kill_at_once()
            for queue in self.queues:
                queue.close()
            self._job.end(list(range(len(self.processes))))
            self._job.close()
            if self._forwarder is not None:
                self._forwarder.release()

    def _running(self) -> list[tuple[BaseProcess, ReportQueue]]:
        return [
            (process, queue)
            for process, queue in zip(self.processes, self.queues, strict=False)
            if process.pid is not None and process.is_alive()
        ]

    def _kill_at_once(self) -> None:
        running = call_undisturbed(self._running)
        for process, _ in running:
            process.kill()
        # What a rank has forked may hold the pipe by which it is found out that the rank has ended.
        self._job.end(list(range(len(self.processes))))
        for process, _ in running:
            process.join(REAP_TIME)


class MultiprocessingStart(Start):
    """Ranks that `multiprocessing` starts, one after the other, with their arguments each."""

    def __init__(
        self, fn: Callable[..., object], args: Sequence[Any], *, daemon: bool, start_method: str
    ) -> None:
        super().__init__(fn, args, daemon=daemon)
        self._mp_context: Any = _multiprocessing.context(start_method)

    def _start(self, nprocs: int) -> None:
        guard = call_undisturbed(functools.partial(self._order_guard, nprocs))
        try:
            for rank in range(nprocs):
                # This may take any time, if a pipe is full, and is done before.
                _multiprocessing.flush_streams()
                make_sure_of_descriptors()
                call_undisturbed(functools.partial(self._start_rank, rank, guard))
        finally:
            if guard is not None:
                # Connections that are interrupted there are closed a second time later.
                call_undisturbed(guard.close)

    def _order_guard(self, nprocs: int) -> GuardOrder | None:
        if not features() & _native.FEATURE_GUARD:
            return None
        self._job.pipe = LauncherPipe()
        return GuardOrder(self._job.name, self._job.pipe, nprocs)

    def _start_rank(self, rank: int, guard: GuardOrder | None) -> None:
        pipe = sendable(self._open_report())
        try:
            process = self._mp_context.Process(
                target=_rank.run,
                args=(self._fn, rank, self._args, pipe, guard),
                daemon=self._daemon,
            )
            self.processes.append(process)
            before = time.perf_counter_ns()
            process.start()
            self._note_ended(before)
        except OSError as error:
            close_lost_pipes(error)
            raise
        finally:
            # Only the rank has the write end from now on.
            pipe.close()

    def _note_ended(self, before: int) -> None:
        """
        Note who is well, and was so at the time *before*, and who has ended by now.

        At each start `multiprocessing` looks at all children, and collects those that have ended;
        with that the kernel forgets their order.
        """
        now = time.perf_counter_ns()
        for process, queue in zip(self.processes, self.queues, strict=True):
            if _multiprocessing.popen_of(process).returncode is None:
                queue.well_at = before
            elif queue.ended_by == 0:
                queue.ended_by = now


class ForkServerStart(MultiprocessingStart):
    """The same with the start method that has a server of its own, which may fail by itself."""

    def __init__(self, fn: Callable[..., object], args: Sequence[Any], *, daemon: bool) -> None:
        super().__init__(fn, args, daemon=daemon, start_method="forkserver")

    def _start_rank(self, rank: int, guard: GuardOrder | None) -> None:
        try:
            super()._start_rank(rank, guard)
        except (EOFError, ConnectionError) as error:
            explained = _fork_server.explain(error)
            if explained is error:
                raise
            raise explained from error

    def undo(self, at_once: bool) -> None:
        for process, queue in zip(self.processes, self.queues, strict=False):
            if process.pid is not None and queue.fd >= 0 and not process.is_alive():
                _fork_server.kill_lost(process.pid, queue.fd)
        super().undo(at_once)


class FreshStart(Start):
    """Fresh interpreters from the C launcher, all at once, with one payload for all."""

    def __init__(
        self, fn: Callable[..., object], args: Sequence[Any], *, daemon: bool, full_exit: bool
    ) -> None:
        super().__init__(fn, args, daemon=daemon)
        self._full_exit = full_exit
        self._launch: Launch | None = None
        self._reports: list[Fd] = []

    def _start(self, nprocs: int) -> None:
        payload = Payload({"fn": self._fn, "args": self._args}, count=nprocs)
        try:
            self._refuse_what_cannot_be_imported(payload)
            for _ in range(nprocs):
                self._reports.append(self._open_report())
                self.processes.append(SpawnProcess(daemon=self._daemon))
            early_stderr = open_early_stderr()
            self._launch = Launch(
                payload,
                self.processes,
                self._reports,
                job=self._job,
                full_exit=self._full_exit,
                early_stderr=early_stderr,
            )
            if early_stderr is not None:
                for rank, queue in enumerate(self.queues):
                    queue.early_stderr = functools.partial(early_stderr.take, rank)
            before = time.perf_counter_ns()
            for queue in self.queues:
                queue.started_at = before
            self._launch.start()
            self._adopt()
            for queue in self.queues:
                # All the same, so that the kernel decides on the order of their ends.
                queue.well_at = before
        finally:
            payload.close()
            # Only the ranks have these from now on.
            for write_end in self._reports:
                write_end.close()

    def undo(self, at_once: bool) -> None:
        self._adopt()
        super().undo(at_once)

    def _adopt(self) -> None:
        """Give what has been started to the process objects; does nothing the second time."""
        popens = self._launch.popens() if self._launch is not None else []
        for process, popen in zip(self.processes, popens, strict=False):
            if process.pid is None:
                _multiprocessing.adopt(process, popen)

    def _refuse_what_cannot_be_imported(self, payload: Payload) -> None:
        """
        Refuse what is defined in a main module that a fresh interpreter cannot run again.

        Raises:
            TypeError: so it is.
        """
        if _multiprocessing.main_can_be_imported() or not payload.refers_to("__main__"):
            return
        in_main = getattr(self._fn, "__module__", None) == "__main__"
        what = f"fn ({self._fn!r})" if in_main else "something in fn or args"
        msg = (
            f"{what} is defined in a main module that ranks cannot import, such as an interactive "
            "session, `python -c` or a `__main__.py`: put it into a module of its own, "
            'or use start_processes(..., start_method="fork")'
        )
        raise TypeError(msg)
