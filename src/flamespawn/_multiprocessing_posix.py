"""
What is known of the inside of the standard library's multiprocessing and holds on POSIX only.

Facts that this module relies on, in CPython 3.11 to 3.15:

- Under `forkserver` the process is the server's child; see `_multiprocessing`.
- Connections send an object as a length and a pickle.
- The resource tracker is a process of its own, behind a pipe.
"""

from __future__ import annotations

import fcntl
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import struct
import time
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

from flamespawn._native import Fd

# What a pickle can be loaded with once only.
LOADED_ONCE: tuple[bytes, ...] = ()

_LAST_STANDARD = 2
_TRACKER_NICENESS = 19

_COLLECTING_PAUSE = 0.0005

_SHORT = struct.Struct("!i")
_LONG = struct.Struct("!Q")
_SIZE_FOLLOWS = -1


class _Popen(Protocol):
    returncode: int | None


def sendable(fd: Fd) -> multiprocessing.connection.Connection:
    """Return an object that owns *fd* for writing and can be an argument of a process."""
    return multiprocessing.connection.Connection(fd.detach(), readable=False)


def is_child(process: BaseProcess) -> bool:
    """Return whether a started process is a child of this one, rather than of a fork server."""
    return getattr(process._popen, "method", "") != "forkserver"  # type: ignore[attr-defined]


class _Patience:
    """
    How long to wait for another thread: on a busy machine it may have to wait as long for the GIL.

    Half as long after each time in vain, so that many processes that somebody else has collected
    do not add up; as long as at first after a success.
    """

    LONGEST = 0.25
    SHORTEST = 0.01

    def __init__(self) -> None:
        self._seconds = self.LONGEST

    def wait(self, popen: _Popen) -> None:
        end = time.monotonic() + self._seconds
        while popen.returncode is None and time.monotonic() < end:
            # Another thread may be on its way out of waitpid() with the status in its hands. It
            # has nothing to signal to us; all it needs is the GIL.
            time.sleep(_COLLECTING_PAUSE)
        in_vain = popen.returncode is None
        self._seconds = max(self._seconds / 2, self.SHORTEST) if in_vain else self.LONGEST


_patience = _Patience()


def wait_for_exit_code(popen: _Popen) -> int | None:
    """Return the exit code that another thread of this process may just have collected, or None."""
    # Where SIGCHLD is ignored, the kernel has thrown the status away.
    if signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN:
        _patience.wait(popen)
    return popen.returncode


def job_of(_popen: object) -> int:
    """Return -1: there are no jobs."""
    return -1


def sharing(pickler: ForkingPickler) -> ForkingPickler:
    """Return the pickler: the standard library's reducers do for any number of processes."""
    return pickler


def reader_fileno(queue: object) -> int:
    """Return the descriptor behind a queue, or -1 for one that has none, such as a proxy."""
    reader = getattr(queue, "_reader", None)
    return reader.fileno() if isinstance(reader, multiprocessing.connection.Connection) else -1


def received_object(buffer: bytearray) -> tuple[int, bytes | None]:
    """
    Take the first object that was sent out of what a queue's reader has received.

    Returns:
        Its size, zero while that is not known, and its pickle, None as long as that is incomplete.
    """
    if len(buffer) < _SHORT.size:
        return 0, None
    (size,) = _SHORT.unpack_from(buffer)
    start = _SHORT.size
    if size == _SIZE_FOLLOWS:
        if len(buffer) < start + _LONG.size:
            return 0, None
        (size,) = _LONG.unpack_from(buffer, start)
        start += _LONG.size
    complete = 0 <= size <= len(buffer) - start
    return size, bytes(buffer[start : start + size]) if complete else None


def tracker_fd() -> int | None:
    """
    Return the descriptor of the resource tracker, which is started if it does not run.

    Whatever a process makes that has to be tracked is to outlive it for as long as the launcher
    lives, so that it needs the launcher's tracker and not one of its own.
    """
    tracker: Any = multiprocessing.resource_tracker._resource_tracker
    is_new = tracker._fd is None
    fd: int = tracker.getfd()
    if is_new and tracker._pid is not None:
        # It has as much to import as all of a rank, and all the time in the world.
        os.setpriority(os.PRIO_PROCESS, tracker._pid, _TRACKER_NICENESS)
    if fd <= _LAST_STANDARD:
        # The standard streams are closed, and a rank would print into the pipe of the tracker.
        tracker._fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD + 1)
        os.close(fd)
        fd = tracker._fd
    return fd
