"""A process that the C launcher has started, as `multiprocessing.Process` keeps it, on Windows."""

from __future__ import annotations

import _winapi
from multiprocessing import popen_spawn_win32
from typing import Any

from flamespawn._native import Fd


class LauncherPipe:
    """A handle of this process: it tells ranks that the launcher is gone."""

    def __init__(self) -> None:
        me = _winapi.GetCurrentProcess()
        self._handle = Fd(_winapi.DuplicateHandle, me, me, me, _winapi.SYNCHRONIZE, False, 0)

    def fileno(self) -> int:
        """Return what ranks inherit."""
        return self._handle.fileno()

    def close_read_end(self) -> None:
        """Only the ranks have it from now on."""
        self._handle.close()


class Popen(popen_spawn_win32.Popen):
    """
    A started process.

    Args:
        pid: its process id.
        handle: its handle.
        sentinel: None, for there is a handle.
        pipe: not needed.
        job: the job of the process and of all that it starts.

    Attributes:
        usage: None, for a context takes it from the system at any time.
    """

    method = "spawn"
    usage = None

    def __init__(self, pid: int, handle: Fd, sentinel: None, pipe: LauncherPipe, job: Fd) -> None:
        # Not super(): that one starts a process.
        self.pid = pid
        self.returncode: int | None = None
        self.sentinel = handle.fileno()
        self._handle = self.sentinel
        self._process = handle
        self._job: Fd | None = job
        self.finalizer: Any = handle.close

    @property
    def job(self) -> int:
        """Its handle, -1 when this was closed."""
        return self._job.fileno() if self._job is not None else -1

    def close(self) -> None:
        super().close()
        if self._job is not None:
            self._job.close()
            self._job = None

    def duplicate_for_child(self, handle: int) -> int:
        """Refuse: what the process inherits was decided before its start."""
        raise NotImplementedError
