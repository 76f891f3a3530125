"""Starting fresh interpreters, all of them by one call into C."""

from __future__ import annotations

import functools
import importlib
import os
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from flamespawn import RANK_MARK, _boot, _multiprocessing, _native
from flamespawn._payload import Payload
from flamespawn._platform import above_standard, features
from flamespawn._popen import LauncherPipe, Popen
from flamespawn._teardown import REAP_TIME

# What a new interpreter is told to run.
_PROGRAM = (
    "import marshal,os,sys;"
    "h=marshal.loads(os.pread({fd},{size},{start}));"
    "g={{'__name__':'flamespawn._boot'}};exec(h['boot'],g);g['boot'](h)"
)


@functools.cache
def _code() -> dict[str, Any]:
    """Return the code of the modules that every process of ours needs."""
    sources = {}
    for name in (_boot.__name__, *_boot.MODULES):
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
        full_exit: whether the interpreters take themselves apart as they end.

    Nothing is started before `start`.
    """

    def __init__(
        self,
        payload: Payload,
        processes: Sequence[BaseProcess],
        reports: Sequence[int] = (),
        *,
        full_exit: bool = False,
    ) -> None:
        self._processes = processes
        self._reports = reports
        self._popens: list[Popen] = []
        self._started: list[tuple[int, int]] = []
        # Where there are no handles: pipes that end when a process does.
        self._sentinels: list[int] = []
        self._write_ends: list[int] = []
        read_end, write_end = (above_standard(fd) for fd in os.pipe())
        self._pipe = LauncherPipe(read_end, write_end)
        tracker = _multiprocessing.tracker_fd(wanted=not reports)
        self._fds = [payload.fd, read_end, *payload.fds]
        if tracker is not None:
            self._fds.append(tracker)
        header = _multiprocessing.preparation(processes[0].name) | {
            **_code(),
            "counts": [_multiprocessing.identity(process)[-1] for process in processes],
            "fd": payload.fd,
            "fds": self._fds,
            "full_exit": full_exit,
            "installed": _multiprocessing.is_installed(),
            "launcher_fd": read_end,
            "parts": payload.parts,
            "process": not reports,
            "size": payload.size,
            "tracker_fd": tracker,
        }
        header["config"]["daemon"] = processes[0].daemon
        start, size = payload.seal_with(header)
        self._program = _PROGRAM.format(fd=payload.fd, size=size, start=start)

    def start(self) -> None:
        """
        Start all, or none.

        Raises:
            OSError: the system refuses; for a missing interpreter it names the file.
        """
        command = _multiprocessing.interpreter()
        shared = [os.fsencode(word) for word in (*command, "-c", self._program)]
        programs = [(shared + self._options(rank), self._inherited(rank)) for rank in self._ranks()]
        _multiprocessing.flush_streams()
        try:
            # Until the interpreter can handle it, a Ctrl-C would print a traceback of its own.
            _native.launch(features(), shared[0], programs, [signal.SIGINT], self._started)
        except OSError as error:
            if (error.strerror or "").startswith("execve"):
                error.filename = command[0]
            raise
        finally:
            for fd in self._write_ends:
                os.close(fd)
            self._write_ends.clear()
            self._pipe.close_read_end()

    def popens(self) -> list[Popen]:
        """Return what has been started, also where an exception of a signal handler cut it off."""
        for rank in range(len(self._popens), len(self._started)):
            pid, handle = self._started[rank]
            sentinel = self._sentinels[rank] if self._sentinels else -1
            self._popens.append(Popen(pid, handle, sentinel, self._pipe))
        return self._popens

    def _ranks(self) -> range:
        return range(len(self._processes))

    def _options(self, rank: int) -> list[bytes]:
        options = [RANK_MARK.encode(), b"rank=%d" % rank]
        if self._reports:
            options.append(b"report=%d" % self._reports[rank])
        return options

    def _inherited(self, rank: int) -> list[int]:
        fds = list(self._fds)
        if self._reports:
            fds.append(self._reports[rank])
        if not features() & _native.FEATURE_PIDFD:
            read_end, write_end = os.pipe()
            self._sentinels.append(read_end)
            self._write_ends.append(write_end)
            fds.append(write_end)
        return fds


def start_process(process: BaseProcess) -> Popen:
    """Start the process of a `multiprocessing` process object."""
    names = ("target", "args", "kwargs")
    payload = Payload(
        {name: getattr(process, f"_{name}") for name in names} | {"process": process},
        whole=process,
    )
    try:
        launch = Launch(payload, [process])
        try:
            launch.start()
            return launch.popens()[0]
        except BaseException:
            for popen in launch.popens():
                popen.kill()
                popen.wait(REAP_TIME)
            raise
    finally:
        payload.close()
