"""A process that the C launcher has started, as `multiprocessing.Process` keeps it."""

from __future__ import annotations

import os
import resource
import signal
from multiprocessing import popen_fork, util
from typing import Any

from flamespawn import _multiprocessing


class LauncherPipe:
    """
    A pipe that nobody writes to: its read end tells ranks that the launcher is gone.

    Attributes:
        read_end: what ranks inherit.
    """

    def __init__(self, read_end: int, write_end: int) -> None:
        self.read_end = read_end
        self._close_read_end = util.Finalize(self, os.close, args=(read_end,))
        util.Finalize(self, os.close, args=(write_end,))
        self._write_end = write_end
        # A process that is forked later is not the launcher, however long it lives.
        _multiprocessing.call_after_fork(self, LauncherPipe._close_in_fork)

    def close_read_end(self) -> None:
        """Only the ranks have it from now on."""
        self._close_read_end()

    def _close_in_fork(self) -> None:
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1


class Popen(popen_fork.Popen):
    """
    A started process.

    Args:
        pid: its process id.
        handle: its pidfd, or -1; owned.
        sentinel: what becomes readable when it ends, where there is no handle, or -1; owned.
        pipe: kept open for as long as this object lives.

    Attributes:
        usage: its resource usage, if this object has collected it.
        core_dumped: whether it did, as far as this object knows.
        is_unknown: whether somebody else has collected its exit status and does not tell.

    The exit status is looked at before it is collected, so that an exception of a signal handler
    in between loses nothing.
    """

    method = "spawn"

    def __init__(self, pid: int, handle: int, sentinel: int, pipe: LauncherPipe) -> None:
        # Not super(): that one starts a process.
        self.pid = pid
        self.returncode: int | None = None
        self.usage: resource.struct_rusage | None = None
        self.is_unknown = False
        self.core_dumped = False
        self.sentinel = handle if handle >= 0 else sentinel
        self._handle = handle
        self._pipe: LauncherPipe | None = pipe
        fds = [fd for fd in (handle, sentinel) if fd >= 0]
        self.finalizer = _multiprocessing.close_when_collected(self, fds)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            try:
                found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | flag)
            except ChildProcessError:
                return self._collected_elsewhere()
            if found is not None:
                exited = found.si_code == os.CLD_EXITED
                self.core_dumped = found.si_code == os.CLD_DUMPED
                self.returncode = found.si_status if exited else -found.si_status
                self._collect()
        return self.returncode

    def _collect(self) -> None:
        try:
            _, _, self.usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            # A context has been faster; it has the usage.
            return

    def _collected_elsewhere(self) -> int:
        """Return the exit code that another thread has collected, or 255 if nobody tells."""
        code = _multiprocessing.wait_for_exit_code(self)
        if code is None:
            self.is_unknown = True
            code = self.returncode = _multiprocessing.UNKNOWN_EXIT_CODE
        return code

    def wait(self, timeout: float | None = None) -> int | None:
        if self.returncode is None:
            from multiprocessing.connection import wait  # noqa: PLC0415 - as in the base class

            if not wait([self.sentinel], timeout):
                return None
            # The sentinel can be a little earlier than the kernel's last word.
            return self.poll(os.WNOHANG if timeout == 0 else 0)
        return self.returncode

    def _send_signal(self, sig: int) -> None:
        if self.returncode is not None:
            return
        try:
            if self._handle >= 0 and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(self._handle, sig)
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
