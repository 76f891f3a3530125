"""Starting fresh interpreters, all of them by one call into C."""

from __future__ import annotations

import functools
import importlib
import os
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from flamespawn import RANK_MARK, _boot, _fresh, _multiprocessing, _native
from flamespawn._early_stderr import PART_SIZE, EarlyStderr
from flamespawn._job import MARK_VARIABLE, Job, guard_arguments, open_board, variable
from flamespawn._native import Fd, call_or_undo
from flamespawn._payload import Payload
from flamespawn._platform import (
    HEADER_READER,
    LauncherPipe,
    Popen,
    environment,
    executable,
    features,
    handle_of,
    here,
    name_limit,
    own_job,
    tracker_fd,
)
from flamespawn._teardown import REAP_TIME
from flamespawn._undisturbed import call_undisturbed

# What a new interpreter is told to run, once it has read the header into `h`.
_PROGRAM = "g={'__name__':'flamespawn._boot'};exec(h['boot'],g);g['boot'](h)"

# What every process of ours imports, in this order.
_MODULES = (
    "flamespawn",
    here.__name__,
    "flamespawn._platform",
    "flamespawn._frames",
    "flamespawn._stack_writer",
    "flamespawn._report_writer",
    "flamespawn._rank",
    "flamespawn._late_multiprocessing",
    "flamespawn._leaving",
    "flamespawn._fresh",
)


@functools.cache
def _code() -> dict[str, Any]:
    """Return the code of the modules that every process of ours needs."""
    if _fresh.boot_code:
        # This process is one itself, and may have no other source.
        return _fresh.boot_code
    sources = {}
    for name in (_boot.__name__, *_MODULES):
        module = importlib.import_module(name)
        loader: Any = module.__loader__
        sources[name] = (name, module.__file__, loader.get_code(name))
    boot = sources.pop(_boot.__name__)
    return {"boot": boot[-1], "modules": list(sources.values())}


class Launch:
    """
    Processes that are started together.

    Args:
        payload: what they run; sealed by this.
        processes: their process objects, not started.
        reports: for each the write end of its report pipe; none where a process object is run.
        job: that the processes are ranks of, or None.
        full_exit: whether the interpreters take themselves apart as they end.
        early_stderr: what they write on their standard error before they come to code of ours.

    Nothing is started before `start`.
    """

    def __init__(
        self,
        payload: Payload,
        processes: Sequence[BaseProcess],
        reports: Sequence[Fd] = (),
        *,
        job: Job | None = None,
        full_exit: bool = False,
        early_stderr: EarlyStderr | None = None,
    ) -> None:
        self._processes = processes
        self._reports = reports
        self._job = job
        self._early_stderr = early_stderr
        self._popens: list[Popen] = []
        self._started: list[tuple[int, Fd | None, Fd | None]] = []
        # Where there are no handles: pipes that end when a process does.
        self._sentinels: list[Fd] = []
        self._write_ends: list[Fd] = []
        self._pipe = LauncherPipe()
        self._board: Fd | None = None
        # The standard library may start a process, which an interrupt would lose.
        tracker = call_undisturbed(tracker_fd)
        file = handle_of(payload.fd)
        self._fds = [file, self._pipe.fileno(), *payload.fds]
        if tracker is not None:
            self._fds.append(tracker)
        header = _multiprocessing.preparation(processes[0].name) | {
            **_code(),
            "counts": [_multiprocessing.identity(process)[-1] for process in processes],
            "early_stderr": early_stderr and early_stderr.for_ranks(),
            "fd": file,
            "fds": self._fds,
            "full_exit": full_exit,
            "guard": self._guard(),
            "installed": _multiprocessing.is_installed(),
            "launcher_fd": self._pipe.fileno(),
            "parts": payload.parts,
            "process": not reports,
            "size": payload.size,
            "tracker_fd": tracker,
        }
        header["config"]["daemon"] = processes[0].daemon
        start, size = payload.seal_with(header)
        self._program = HEADER_READER.format(file=file, size=size, start=start) + _PROGRAM

    def _guard(self) -> list[Any] | None:
        """Return what a rank needs for its guard, or None for no guard."""
        if self._job is None or not features() & _native.FEATURE_GUARD:
            return None
        fds = self._pipe.guard_fds()
        self._board = open_board(len(self._processes))
        if self._board is not None:
            fds["board"] = self._board.fileno()
        # The pipe is among them already.
        self._fds.extend(fd for name, fd in fds.items() if name != "pipe")
        return guard_arguments(self._job.name, features(), fds, len(self._processes))

    def _variable(self, rank: int) -> bytes | None:
        """Return the variable that marks a rank and all that it starts."""
        if self._job is None or not features() & _native.FEATURE_TREE:
            return None
        return os.fsencode(f"{MARK_VARIABLE}={variable(self._job.name, rank)}")

    def start(self) -> None:
        """
        Start all, or none.

        Raises:
            OSError: the system refuses; for a missing interpreter it names the file.
        """
        program, *flags = _multiprocessing.interpreter()
        program = executable(program)
        shared = [os.fsencode(word) for word in (program, *flags, "-c", self._program)]
        _multiprocessing.flush_streams()
        try:
            if not features() & _native.FEATURE_PIDFD:
                self._open_sentinels()
            programs = [
                (shared + self._options(rank), self._inherited(rank), self._variable(rank))
                for rank in self._ranks()
            ]
            # Until the interpreter can handle it, a Ctrl-C would print a traceback of its own.
            early = self._early_stderr
            errors = None if early is None else early.path.encode()
            _native.launch(
                features(),
                shared[0],
                programs,
                [signal.SIGINT],
                self._started,
                environment=environment(),
                job=own_job(),
                errors=errors,
                errors_size=PART_SIZE,
            )
        except OSError as error:
            if (error.strerror or "").startswith(("execve", "posix_spawn", "CreateProcess")):
                error.filename = program
            raise
        finally:
            del self._sentinels[len(self._started) :]
            for fd in self._write_ends:
                fd.close()
            self._pipe.close_read_end()
            if self._board is not None:
                self._board.close()

    def popens(self) -> list[Popen]:
        """Return what has been started, also where an exception of a signal handler cut it off."""
        for rank in range(len(self._popens), len(self._started)):
            pid, handle, own_job = self._started[rank]
            sentinel = self._sentinels[rank] if self._sentinels else None
            self._popens.append(Popen(pid, handle, sentinel, self._pipe, own_job))
        return self._popens

    def _ranks(self) -> range:
        return range(len(self._processes))

    def _open_sentinels(self) -> None:
        for _ in self._ranks():
            read_end, write_end = _native.open_pipe()
            self._sentinels.append(read_end)
            self._write_ends.append(write_end)

    def _own_fds(self, rank: int) -> dict[str, int]:
        """Return the descriptors that only this rank inherits."""
        fds = {"report": self._reports, "sentinel": self._write_ends}
        return {name: owners[rank].fileno() for name, owners in fds.items() if owners}

    def _options(self, rank: int) -> list[bytes]:
        options = {"rank": rank, **self._own_fds(rank)}
        return [
            RANK_MARK.encode(),
            *(f"{name}={value}".encode() for name, value in options.items()),
        ]

    def _inherited(self, rank: int) -> list[int]:
        stderr = () if self._early_stderr is None else (self._early_stderr.launchers.fileno(),)
        return [*self._fds, *stderr, *self._own_fds(rank).values()]


def start_process(process: BaseProcess) -> Popen:
    """Start the process of a `multiprocessing` process object."""
    names = ("target", "args", "kwargs")
    payload = Payload(
        {name: getattr(process, f"_{name}") for name in names} | {"process": process},
        whole=process,
    )
    try:
        return _start(Launch(payload, [process]))
    finally:
        payload.close()


def _start(launch: Launch) -> Popen:
    def start() -> Popen:
        launch.start()
        return launch.popens()[0]

    def undo(_at_once: bool) -> None:
        for popen in launch.popens():
            popen.kill()
            popen.wait(REAP_TIME)

    try:
        return call_or_undo(start, undo)
    except OSError as error:
        name_limit(error, 1)
        raise
