"""
The fork server of the standard library, when it fails.

Facts that this module relies on, in CPython 3.11 to 3.15: the server ends when it cannot fork, and
then nobody waits for the processes that it has forked. Whoever has asked it gets EOFError, or
`ConnectionError` from then on. The next start makes a new server if the old one is a zombie.
"""

from __future__ import annotations

import errno
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import time
from typing import Any

from flamespawn._native import open_handle, signal_handle

# It closes its files some time before it ends.
_ENDING_TRIES = 400
_ENDING_PAUSE = 0.005

# The time that a killed process has to disappear.
_KILLED_SECONDS = 2.0


def explain(error: Exception) -> Exception:
    """Return the error to raise where a start by the fork server has failed with *error*."""
    if not has_ended():
        return error
    msg = "the fork server has ended, most likely because it could not fork; see its stderr"
    return OSError(errno.EAGAIN, msg)


def has_ended() -> bool:
    """Return whether the fork server has ended, or does so now; the next start makes a new one."""
    server: Any = multiprocessing.forkserver._forkserver
    pid: int | None = server._forkserver_pid
    if pid is None:
        return True
    for _ in range(_ENDING_TRIES):
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                return True
        except ChildProcessError:
            return True
        # It has closed its end of a pipe before, and is on its way.
        time.sleep(_ENDING_PAUSE)
    return False


def kill_lost(pid: int, fd: int) -> None:
    """
    Kill the process of a fork server that has ended: nobody tells of it any more.

    Its pid may be somebody else's by now. What proves that it is the one is that it holds the other
    end of a pipe of ours; its handle was there before we looked.

    Args:
        pid: its process id.
        fd: our end of the pipe.
    """
    try:
        handle = open_handle(pid)
    except OSError:
        # There are no handles, or there is no such process.
        return
    try:
        if os.readlink(f"/proc/self/fd/{fd}") in _open_files(pid):  # noqa: PTH115
            signal_handle(handle.fileno(), signal.SIGKILL)
            multiprocessing.connection.wait([handle.fileno()], _KILLED_SECONDS)
    finally:
        handle.close()


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            found.add(os.readlink(entry.path))  # noqa: PTH115
    except OSError:
        # It has ended.
        return set()
    return found
