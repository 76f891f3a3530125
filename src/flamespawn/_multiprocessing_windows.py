"""
What is known of the inside of the standard library's multiprocessing and holds on Windows only.

Facts that this module relies on, in CPython 3.11 to 3.15:

- A connection is a named pipe whose messages are what was sent, and it is pickled as a duplicate of
  its handle that can be fetched once. A lock asks `get_spawning_popen()` for a duplicate.
- There is no resource tracker: a named section is gone when its last handle is closed.
- `Process.sentinel` is the handle of the process, and its exit code can be asked for again and
  again.
"""

from __future__ import annotations

import multiprocessing.connection
import multiprocessing.context
import pickletools
from multiprocessing.connection import PipeConnection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

from flamespawn._fresh import InheritedFd
from flamespawn._native import Fd

# What a pickle can be loaded with once only: a handle that is fetched from its owner.
LOADED_ONCE = (b"DupHandle", b"DupSocket")


class _Popen(Protocol):
    returncode: int | None


def sendable(fd: Fd) -> PipeConnection:
    """Return an object that owns *fd* for writing and can be an argument of a process."""
    return PipeConnection(fd.detach(), readable=False)


def is_child(_process: BaseProcess) -> bool:
    """Return whether only the parent of a process learns how it ended, and may ask once."""
    return False


def wait_for_exit_code(popen: _Popen) -> int | None:
    """Return the exit code that another thread of this process may have stored, or None."""
    return popen.returncode


def job_of(popen: object) -> int:
    """Return the job of a process that the C launcher has started, -1 for others."""
    return getattr(popen, "job", -1)


def reader_fileno(queue: object) -> int:
    """Return the handle behind a queue, or -1 for one that has none, such as a proxy."""
    reader = getattr(queue, "_reader", None)
    return reader.fileno() if isinstance(reader, PipeConnection) else -1


def received_object(buffer: bytearray) -> tuple[int, bytes | None]:
    """
    Take the first object that was sent out of what a queue's reader has received.

    Where a message ends is not to be seen. But a pickle knows its own end.

    Returns:
        Its size, zero while that is not known, and its pickle, None as long as that is incomplete.
    """
    try:
        *_, (_, _, end) = pickletools.genops(bytes(buffer))
    except ValueError:
        return len(buffer), None
    return len(buffer), bytes(buffer[: (end or 0) + 1])


def tracker_fd() -> int | None:
    """Return None: there is no resource tracker."""
    return None


def sharing(pickler: ForkingPickler) -> ForkingPickler:
    """Return the pickler, made able to send connections to any number of processes."""
    reducers: Any = pickler.dispatch_table
    # The pickler's own, up to 3.15.
    reducers[PipeConnection] = _reduce_connection
    return pickler


def _reduce_connection(connection: PipeConnection) -> tuple[object, ...]:
    multiprocessing.context.assert_spawning(connection)
    popen: Any = multiprocessing.context.get_spawning_popen()
    handle = InheritedFd(popen.duplicate_for_child(connection.fileno()))
    rebuild: Any = multiprocessing.connection.rebuild_pipe_connection  # type: ignore[attr-defined]
    return rebuild, (handle, connection.readable, connection.writable)
