"""A process that the C launcher has started, as `multiprocessing.Process` keeps it."""

from __future__ import annotations

import os
import resource
import threading
from multiprocessing import popen_fork
from typing import Any

from flamespawn import _multiprocessing
from flamespawn._lifetime import call_after_fork
from flamespawn._native import FEATURE_PIDFD, Fd, open_handle, open_pipe, peek, signal_handle
from flamespawn._platform import features, wait_for_exit_code

# A thread that has been told needs no more than the GIL, for which it may have to wait.
_COLLECTING_TIME = 1.0


class LauncherPipe:
    """
    A pipe that nobody writes to: its read end tells ranks that the launcher is gone.

    So does a handle of the launcher, where there are such: it does not depend on who else holds
    the write end.
    """

    def __init__(self) -> None:
        self._read_end, self._write_end = open_pipe()
        self._handle: Fd | None = None
        if features() & FEATURE_PIDFD:
            self._handle = open_handle(os.getpid())
        # A process that is forked later is not the launcher, however long it lives.
        call_after_fork(self, LauncherPipe._close_in_fork)

    def fileno(self) -> int:
        """Return what ranks inherit."""
        return self._read_end.fileno()

    def guard_fds(self) -> dict[str, int]:
        """Return what the guard of a rank inherits: the read end, and the handle if any."""
        owners = {"pipe": self._read_end, "launcher": self._handle}
        return {name: owner.fileno() for name, owner in owners.items() if owner is not None}

    def close_read_end(self) -> None:
        """Only the ranks have it, and the handle, from now on."""
        self._read_end.close()
        if self._handle is not None:
            self._handle.close()

    def _close_in_fork(self) -> None:
        self._write_end.close()
        self.close_read_end()


class Popen(popen_fork.Popen):
    """
    A started process.

    Args:
        pid: its process id.
        handle: its pidfd, or None.
        sentinel: what becomes readable when it ends, where there is no handle.
        pipe: kept open for as long as this object lives.
        job: None, for only Windows has these.

    Attributes:
        core_dumped: whether it did, as far as this object knows.
        is_unknown: whether somebody else has collected its exit status and does not tell.

    The exit status is looked at before it is collected, so that an exception of a signal handler
    in between loses nothing.
    """

    method = "spawn"

    def __init__(
        self,
        pid: int,
        handle: Fd | None,
        sentinel: Fd | None,
        pipe: LauncherPipe,
        job: Fd | None = None,
    ) -> None:
        # Not super(): that one starts a process.
        self.pid = pid
        self.returncode: int | None = None
        self._usage: resource.struct_rusage | None = None
        self._collecting = threading.RLock()
        self.is_unknown = False
        self.core_dumped = False
        self._is_collected = False
        owner = handle or sentinel
        assert owner is not None, "the launcher has made one of the two"  # noqa: S101
        self.sentinel = owner.fileno()
        self.finalizer: Any = owner.close
        self._handle = handle
        self._pipe: LauncherPipe | None = pipe

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            try:
                found = peek(self.pid, block=not flag & os.WNOHANG)
            except ChildProcessError:
                return self._collected_elsewhere()
            if found is not None:
                self._is_collected = False
                code, self.core_dumped = found
                self.returncode = code
        if self.returncode is not None and not self._is_collected:
            self._collect()
        return self.returncode

    def _collect(self) -> None:
        # Recursive, because a signal handler may come back to it.
        with self._collecting:
            try:
                _, _, self._usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                # A context has been faster; it has the usage.
                self._is_collected = True
                return
            self._is_collected = True

    @property
    def usage(self) -> resource.struct_rusage | None:
        """Its resource usage, if this object has collected it."""
        # Another thread may have been told by the kernel, and not yet have been able to say so.
        if self._collecting.acquire(timeout=_COLLECTING_TIME):
            self._collecting.release()
        return self._usage

    def _collected_elsewhere(self) -> int:
        """Return the exit code that another thread has collected, or 255 if nobody tells."""
        code = wait_for_exit_code(self)
        if code is None:
            self.is_unknown = True
            code = self.returncode = _multiprocessing.UNKNOWN_EXIT_CODE
        return code

    def _send_signal(self, sig: int) -> None:
        if self.returncode is not None:
            return
        try:
            if self._handle is not None:
                signal_handle(self._handle.fileno(), sig)
            else:
                # Not reaped by anybody that we know of, so the pid is still its own.
                os.kill(self.pid, sig)
        except ProcessLookupError:
            return

    def close(self) -> None:
        super().close()
        self._pipe = None

    def duplicate_for_child(self, fd: int) -> int:
        """Refuse: what the process inherits was decided before its start."""
        raise NotImplementedError

    def _launch(self, process_obj: Any) -> None:
        raise NotImplementedError
