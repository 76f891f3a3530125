"""What POSIX systems offer; `_system_windows` is the other half."""

from __future__ import annotations

import fcntl
import functools
import os
import signal
import tempfile
from pathlib import Path

from flamespawn import _native

# How a new interpreter reads the header of its payload.
HEADER_READER = "import marshal,os;h=marshal.loads(os.pread({file},{size},{start}));"

read_at = os.pread
register_at_fork = os.register_at_fork

# What asks a rank to end, what ends it, and what to send where the first cannot be delivered.
STOP: int = signal.SIGTERM
KILL: int = signal.SIGKILL
STRONGER: dict[int, int] = {}

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the files have no names there
# `fcntl` has the name only where the C library that Python was built with had it; this is Linux's.
_ADD_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033)
# These are the same on FreeBSD.
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW, _SEAL_WRITE = 1, 2, 4, 8


# Field of /proc/PID/stat after the name, and what it says of a thread that is on its way out.
_STATE, _FLAGS = 0, 6
_PF_EXITING = 4


@functools.cache
def features() -> int:
    """Return the features of the system as `_native` knows them, tried out once."""
    return _native.probe()


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"<Unknown signal {number}>"


def os_error(code: int, call: str) -> OSError:
    """Return the exception for a call of the system that has failed."""
    return OSError(code, f"{call}: {os.strerror(code)}")


@functools.cache
def has_memfd() -> bool:
    """
    Return whether there are files in memory that can be sealed.

    Linux 3.17 and FreeBSD 13 have them (memfd_create), macOS has not.
    """
    try:
        file = _native.open_memory(b"probe")
        try:
            fcntl.fcntl(file, _ADD_SEALS, 0)
        finally:
            file.close()
    except OSError:
        return False
    return True


def anonymous_file(name: str) -> _native.Fd:
    """Return the owner of a new, empty file that has no name anywhere and can be mapped."""
    if has_memfd():
        return _native.open_memory(name.encode())
    in_memory = os.access(_SHARED_MEMORY, os.W_OK)
    with tempfile.TemporaryFile(dir=_SHARED_MEMORY if in_memory else None) as file:
        return _native.Fd(os.dup, file.fileno())


def seal(fd: int) -> None:
    """Let nobody change an anonymous file any more, where the system has that."""
    if has_memfd():
        fcntl.fcntl(fd, _ADD_SEALS, _SEAL_SEAL | _SEAL_SHRINK | _SEAL_GROW | _SEAL_WRITE)


def handle_of(fd: int) -> int:
    """Return what processes inherit of an open file."""
    return fd


def own_job() -> _native.Fd | None:
    """Return None: no job holds what a process has started."""
    return None


def environment() -> list[bytes]:
    """Return what processes have in their environment beyond that of this one: nothing."""
    return []


def executable(path: str) -> str:
    """Return the program to start for an interpreter at *path*."""
    return path


class Wakeup:
    """
    What `signal.set_wakeup_fd` is given to wake a set.

    Args:
        handle: the set's own.
    """

    def __init__(self, handle: int) -> None:
        self.fd = handle

    def close(self) -> None:
        """Do nothing: it is the set's."""


def is_crash(code: int) -> bool:
    """Return whether an exit code can be that of a process that has crashed."""
    return code < 0


def is_ending(pid: int, *, otherwise: bool) -> bool:
    """
    Return whether a process has ended or is about to; *otherwise* where nobody can tell.

    Facts about Linux: every thread is marked as exiting before its descriptors are closed, and a
    process that has been collected is not in /proc any more. So a process that does not look like
    that, and has closed a descriptor, has done so itself and lives on.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return otherwise
    return fields[_STATE] in b"ZX" or bool(int(fields[_FLAGS]) & _PF_EXITING)
