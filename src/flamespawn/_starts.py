"""The two ways in which ranks are started, and how a start that fails is undone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from flamespawn import _multiprocessing, _native, _rank
from flamespawn._context import ProcessContext
from flamespawn._forward import Forwarder
from flamespawn._job import GuardOrder, Job
from flamespawn._launch import Launch
from flamespawn._lifetime import call_after_fork
from flamespawn._mp_context import SpawnProcess
from flamespawn._native import Fd, open_pipe
from flamespawn._payload import Payload
from flamespawn._platform import LauncherPipe, features, sendable
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

    def start(self, nprocs: int) -> None:
        """Start *nprocs* ranks. When it raises, `undo` is to be called."""
        raise NotImplementedError

    def context(self, grace_period: float, forwarder: Forwarder) -> ProcessContext:
        """Return the context of the ranks that have been started."""
        context = ProcessContext(
            self.processes, self.queues, grace_period=grace_period, forward_signals=forwarder
        )
        context.job = self._job
        return context

    def _open_report(self) -> Fd:
        """Open the report pipe of the next rank; return its write end."""
        read_end, write_end = open_pipe()
        queue = ReportQueue(read_end)
        # A sibling that is forked later must not hold what belongs to the launcher.
        call_after_fork(queue, ReportQueue.close_in_fork)
        self.queues.append(queue)
        return write_end

    def undo(self) -> None:
        """End the ranks that have been started and are still running."""
        running = [
            (process, queue)
            for process, queue in zip(self.processes, self.queues, strict=False)
            if process.pid is not None and process.is_alive()
        ]
        try:
            if running:
                processes, queues = zip(*running, strict=True)
                ProcessContext(processes, queues).stop()
        finally:
            # What kept the next rank from starting, such as a limit on descriptors, may keep a
            # context from being made. This needs nothing, and does nothing after a stop.
            for process, _ in running:
                process.kill()
                process.join(REAP_TIME)
            for queue in self.queues:
                queue.close()
            self._job.end(list(range(len(self.processes))))
            self._job.close()


class MultiprocessingStart(Start):
    """Ranks that `multiprocessing` starts, one after the other, with their arguments each."""

    def __init__(
        self, fn: Callable[..., object], args: Sequence[Any], *, daemon: bool, start_method: str
    ) -> None:
        super().__init__(fn, args, daemon=daemon)
        self._context: Any = _multiprocessing.context(start_method)

    def start(self, nprocs: int) -> None:
        guard = self._order_guard()
        try:
            for rank in range(nprocs):
                self._start_rank(rank, guard)
        finally:
            if guard is not None:
                guard.close()

    def _order_guard(self) -> GuardOrder | None:
        if not features() & _native.FEATURE_GUARD:
            return None
        self._job.pipe = LauncherPipe()
        return GuardOrder(self._job.name, self._job.pipe)

    def _start_rank(self, rank: int, guard: GuardOrder | None) -> None:
        pipe = sendable(self._open_report())
        try:
            process = self._context.Process(
                target=_rank.run,
                args=(self._fn, rank, self._args, pipe, guard),
                daemon=self._daemon,
            )
            # Before the start: an interrupt just after it must not lose the process.
            self.processes.append(process)
            # This may take any time, if a pipe is full, and is done before.
            _multiprocessing.flush_streams()
            before = time.perf_counter_ns()
            call_undisturbed(process.start)
            self._note_ended(before)
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


class FreshStart(Start):
    """Fresh interpreters from the C launcher, all at once, with one payload for all."""

    def __init__(
        self, fn: Callable[..., object], args: Sequence[Any], *, daemon: bool, full_exit: bool
    ) -> None:
        super().__init__(fn, args, daemon=daemon)
        self._full_exit = full_exit
        self._launch: Launch | None = None
        self._reports: list[Fd] = []

    def start(self, nprocs: int) -> None:
        payload = Payload({"fn": self._fn, "args": self._args}, count=nprocs)
        try:
            self._refuse_what_cannot_be_imported(payload)
            for _ in range(nprocs):
                self._reports.append(self._open_report())
                self.processes.append(SpawnProcess(daemon=self._daemon))
            self._launch = Launch(
                payload,
                self.processes,
                self._reports,
                job=self._job,
                full_exit=self._full_exit,
            )
            before = time.perf_counter_ns()
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

    def undo(self) -> None:
        self._adopt()
        super().undo()

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
