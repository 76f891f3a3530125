"""What the tests ask Windows about this process; `system_posix` has the same names."""

from __future__ import annotations

import collections
import ctypes
import msvcrt
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

_LAST_HANDLE = 1 << 12
_LAST_FD = 256
_NAME, _TYPE = 1, 2
# The system's own handles of other types come and go, and each lock of Python is a semaphore.
_PIPE_OF_MULTIPROCESSING = "\\Device\\NamedPipe\\pyc-"
_TYPES = ("File", "IoCompletion", "Job", "Process")

_OF_OUR_CONSOLE = {child.pid for child in psutil.Process().children()}


def _ask(handle: ctypes.c_void_p, what: int) -> str:
    """Return a text that the system knows about a handle; both kinds of answer begin with it."""
    buffer = ctypes.create_string_buffer(2048)
    ctypes.windll.ntdll.NtQueryObject(handle, what, buffer, len(buffer), None)
    text = ctypes.c_void_p.from_buffer(buffer, ctypes.sizeof(ctypes.c_void_p)).value
    return ctypes.wstring_at(text) if text else ""


def descriptors() -> dict[str, int]:
    """
    Return how many handles of each type and name are open, and how many descriptors of C.

    But for pipes of multiprocessing: it duplicates each for the process that it is sent to, which
    takes the duplicate away, unless it is ended before it comes to that.
    """
    flags = ctypes.c_ulong()
    found: collections.Counter[str] = collections.Counter()
    for number in range(4, _LAST_HANDLE, 4):
        handle = ctypes.c_void_p(number)
        if ctypes.windll.kernel32.GetHandleInformation(handle, ctypes.byref(flags)):
            kind = _ask(handle, _TYPE)
            name = _ask(handle, _NAME)
            if kind in _TYPES and not name.startswith(_PIPE_OF_MULTIPROCESSING):
                found[f"{kind} {name}"] += 1
    found["descriptors"] = sum(map(_is_open, range(_LAST_FD)))
    return dict(found)


def _is_open(fd: int) -> bool:
    try:
        msvcrt.get_osfhandle(fd)
    except OSError:
        return False
    return True


def is_wine() -> bool:
    return hasattr(ctypes.windll.ntdll, "wine_get_version")


def children() -> set[int]:
    """Pids of our children, without what the system has started for our console."""
    return {child.pid for child in psutil.Process().children()} - _OF_OUR_CONSOLE


def os_threads() -> int:
    """Return the number of threads; those of the system's thread pools come and go."""
    return 0


@contextmanager
def alarm(seconds: float, act: Callable[..., None]) -> Iterator[None]:
    """Do nothing: no signal comes by itself here."""
    del seconds, act
    yield


def end_of(pid: int) -> Callable[[], object]:
    """Return what waits for the end of any process, which may be gone by then."""
    return psutil.Process(pid).wait


def has_ended(pid: int, seconds: float) -> bool:
    """Wait for the end of any process; return whether it came in time."""
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def session() -> dict[str, Any]:
    """Return the options for a command that `end_session` can end."""
    return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}


def end_session(process: subprocess.Popen[str]) -> None:
    """Kill a command and all that it has started."""
    try:
        for other in psutil.Process(process.pid).children(recursive=True):
            other.kill()
    except psutil.NoSuchProcess:
        pass
    process.kill()
