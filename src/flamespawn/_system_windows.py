"""What Windows offers; `_system_posix` is the other half."""

from __future__ import annotations

import _winapi
import ctypes
import functools
import msvcrt
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import IO

from flamespawn import _native

# How a new interpreter reads the header of its payload. Not from a position in the file: all
# processes that have inherited the handle share that one.
HEADER_READER = (
    "import marshal,mmap,msvcrt;"
    "f=msvcrt.open_osfhandle({file},0);"
    "m=mmap.mmap(f,0,access=mmap.ACCESS_READ);"
    "h=marshal.loads(m[{start}:{start}+{size}]);m.close();h['fd']=f;"
)

# A CTRL_BREAK asks a rank to end, and its job is terminated to end it, and whatever it has started.
# Without a console there is nothing to ask with.
STOP: int = signal.SIGBREAK
KILL: int = signal.SIGTERM
STRONGER: dict[int, int] = {STOP: KILL}

# The exit codes of abort(), and from where on they are errors that nobody has handled.
_ABORTED = 3
_FIRST_ERROR = 0xC000_0000

# PROCESS_QUERY_LIMITED_INFORMATION
_QUERY = 0x1000


@functools.cache
def features() -> int:
    """Return the features of the system as `_native` knows them."""
    return _native.probe()


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"<Unknown signal {number}>"


def os_error(code: int, call: str) -> OSError:
    """Return the exception for a call of the system that has failed."""
    text = ctypes.FormatError(code).strip()
    return OSError(0, f"{call}: {text}", None, code)


def register_at_fork(**_functions: Callable[[], object]) -> None:
    """Do nothing: there are no forks."""


def anonymous_file(name: str) -> IO[bytes]:
    """Return a new, empty file that is deleted when its last handle is closed."""
    return tempfile.TemporaryFile(prefix=f"{name}-", buffering=0)


def seal(fd: int) -> None:
    """Do nothing: who has the handle of a file may write to it."""


def read_at(fd: int, size: int, start: int) -> bytes:
    """Read from a file that nobody else uses yet."""
    os.lseek(fd, start, os.SEEK_SET)
    parts = []
    while size and (part := os.read(fd, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def handle_of(fd: int) -> int:
    """Return what processes inherit of an open file."""
    return msvcrt.get_osfhandle(fd)


class Wakeup:
    """
    What `signal.set_wakeup_fd` is given to wake a set.

    Args:
        handle: the set's own; a duplicate of it gets a descriptor.
    """

    def __init__(self, handle: int) -> None:
        self.fd = -1
        me = _winapi.GetCurrentProcess()
        same = _winapi.DuplicateHandle(me, handle, me, 0, False, _winapi.DUPLICATE_SAME_ACCESS)
        self.fd = msvcrt.open_osfhandle(same, os.O_WRONLY | os.O_BINARY | os.O_NOINHERIT)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    __del__ = close


@functools.cache
def own_job() -> _native.Fd | None:
    """
    Return the job of all processes that this one starts, which ends them when this one ends.

    It is closed by the system, however this process ends.
    """
    return _native.open_job()


def environment() -> list[bytes]:
    """
    Return what processes have in their environment beyond that of this one.

    The program of a virtual environment is a launcher that starts the real interpreter, which
    would be a grandchild. `multiprocessing` starts the real one and tells it about the environment.
    """
    if _is_launcher():
        return [b"__PYVENV_LAUNCHER__=" + os.fsencode(sys.executable)]
    return []


def executable(path: str) -> str:
    """Return the program to start for an interpreter at *path*."""
    same = os.path.normcase(path) == os.path.normcase(sys.executable)
    return _base_executable() if same and _is_launcher() else path


def _base_executable() -> str:
    base: str = sys._base_executable  # type: ignore[attr-defined] # noqa: SLF001
    return base


def _is_launcher() -> bool:
    return os.path.normcase(sys.executable) != os.path.normcase(_base_executable())


def is_crash(code: int) -> bool:
    """Return whether an exit code can be that of a process that has crashed."""
    return code == _ABORTED or code >= _FIRST_ERROR


def is_ending(pid: int, *, otherwise: bool) -> bool:
    """
    Return whether a process is about to end; *otherwise* where nobody can tell.

    One that ends gets its exit code first, and then its handles are closed.
    """
    try:
        process = _winapi.OpenProcess(_QUERY, False, pid)
    except OSError:
        return otherwise
    try:
        return _winapi.GetExitCodeProcess(process) != _winapi.STILL_ACTIVE
    finally:
        _winapi.CloseHandle(process)
