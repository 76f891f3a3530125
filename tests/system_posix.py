"""What the tests ask a POSIX system about this process; `system_windows` has the same names."""

from __future__ import annotations

import os
import subprocess
from multiprocessing import forkserver, resource_tracker
from typing import Any

import psutil


def helpers_of_multiprocessing() -> set[int]:
    """Pids of the processes that multiprocessing itself keeps for the life of the launcher."""
    return {
        pid
        for pid in (
            resource_tracker._resource_tracker._pid,
            forkserver._forkserver._forkserver_pid,
        )
        if pid is not None
    }


def children() -> set[int]:
    """Pids of our children, zombies included, without multiprocessing's helpers."""
    return {child.pid for child in psutil.Process().children()} - helpers_of_multiprocessing()


def descriptors() -> dict[str, str]:
    result = {}
    for entry in os.scandir("/proc/self/fd"):
        try:
            result[entry.name] = os.readlink(entry.path)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return result


def os_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def session() -> dict[str, Any]:
    """Return the options for a command that `end_session` can end."""
    return {"start_new_session": True}


def end_session(process: subprocess.Popen[str]) -> None:
    """Kill a command and all that is in its session."""
    for other in psutil.process_iter(["pid"]):
        try:
            if os.getsid(other.pid) == process.pid:
                other.kill()
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
