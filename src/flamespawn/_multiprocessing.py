"""
All that is known here about the inside of the standard library's multiprocessing.

Facts that this module relies on, in CPython 3.11 to 3.15:

- `Process._popen.returncode` is None until somebody has collected the exit status; whoever sets
  it has collected. `multiprocessing` collects for itself in `exitcode`, `is_alive`, `join`,
  `active_children` and at every `start` of any process.
- Under `forkserver` the process is the server's child. The server collects the status and writes
  it to a pipe whose read end is the process's `sentinel`.
- Queues and connections send an object as a length and a pickle; the read end is `_reader`.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.util
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

# What the process object shows when the status went to somebody who did not tell; asyncio and
# the fork server use the same value.
UNKNOWN_EXIT_CODE = 255

_COLLECTING_TRIES = 20
_COLLECTING_PAUSE = 0.0005


def start_methods() -> list[str]:
    return multiprocessing.get_all_start_methods()


def context(start_method: str) -> multiprocessing.context.BaseContext:
    return multiprocessing.get_context(start_method)


def is_daemonic() -> bool:
    """Return whether this process is a daemonic one, which may not have children."""
    return multiprocessing.current_process().daemon


def sendable(fd: int) -> multiprocessing.connection.Connection:
    """Return an object that owns *fd* for writing and can be an argument of a process."""
    return multiprocessing.connection.Connection(fd, readable=False)


def is_child(process: BaseProcess) -> bool:
    """Return whether a started process is a child of this one, rather than of a fork server."""
    return getattr(process._popen, "method", "") != "forkserver"  # type: ignore[attr-defined]


def settle(process: BaseProcess, exit_code: int | None) -> int | None:
    """
    Tell a process object that its process has ended and that the status has been collected.

    Args:
        process: the object.
        exit_code: as in `Process.exitcode`; None if the status went to somebody else.

    Returns:
        The exit code, which `multiprocessing` itself may have collected, or None.
    """
    popen = process._popen  # type: ignore[attr-defined]
    if popen is None:
        # Closed by its owner, who may do that only after having collected the status.
        return exit_code
    if exit_code is None:
        exit_code = _collected_elsewhere(process)
    if popen.returncode is None:
        popen.returncode = UNKNOWN_EXIT_CODE if exit_code is None else exit_code
    # Returns at once, and takes the process off the list of active children.
    process.join()
    return exit_code


def _collected_elsewhere(process: BaseProcess) -> int | None:
    """Return the exit code that another thread may have collected through *process*, or None."""
    for _ in range(_COLLECTING_TRIES):
        exit_code = process.exitcode
        if exit_code is not None:
            return exit_code
        # Another thread may be on its way out of waitpid() with the status in its hands. It has
        # nothing to signal to us; all it needs is the GIL.
        time.sleep(_COLLECTING_PAUSE)
    return None


def reader_fileno(queue: object) -> int:
    """Return the descriptor behind a queue, or -1 for one that has none, such as a proxy."""
    reader = getattr(queue, "_reader", None)
    return reader.fileno() if isinstance(reader, multiprocessing.connection.Connection) else -1


def call_after_fork(owner: Any, function: Callable[[Any], None]) -> None:
    """Call `function(owner)` in every process that `multiprocessing` forks, while *owner* lives."""
    multiprocessing.util.register_after_fork(owner, function)
