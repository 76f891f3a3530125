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
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

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


class Popen(Protocol):
    """What a started process object keeps about its process."""

    returncode: int | None


def popen_of(process: BaseProcess) -> Popen:
    """
    Return where the exit code of a started process is to be written by whoever collects it.

    Then `exitcode` and `is_alive` of the process object are right.
    """
    popen: Popen = process._popen  # type: ignore[attr-defined]
    return popen


def exit_code_taken_elsewhere(
    process: BaseProcess, popen: Popen, *, worth_waiting: bool
) -> int | None:
    """
    Return the exit code of a process that somebody else has collected, None if unknown.

    Args:
        process: the process object.
        popen: what `popen_of` returned for it.
        worth_waiting: whether more depends on it than what the process object shows.
    """
    exit_code = popen.returncode
    # Only one who knows the exit code closes the object.
    closed = process._popen is None  # type: ignore[attr-defined]
    if exit_code is None and not closed:
        exit_code = process.exitcode
        # Where SIGCHLD is ignored, the kernel has thrown the status away.
        kept = signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN
        if exit_code is None and worth_waiting and kept:
            exit_code = _collected_elsewhere(process)
    if exit_code is None:
        popen.returncode = UNKNOWN_EXIT_CODE
    return exit_code


def retire(process: BaseProcess) -> None:
    """Take a process that has ended off multiprocessing's list of active children."""
    if process._popen is not None:  # type: ignore[attr-defined]
        process.join()


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


def close_at_exit(owner: object, fd: int) -> Callable[[], object]:
    """
    Close *fd* when *owner* is collected, and before this process waits for children as it exits.

    Returns:
        A function that closes it earlier; in a forked process it does nothing.
    """
    return multiprocessing.util.Finalize(owner, os.close, args=(fd,), exitpriority=100)
