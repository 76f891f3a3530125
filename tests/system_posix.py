"""What the tests ask a POSIX system about this process; `system_windows` has the same names."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def alarm(seconds: float, act: Callable[..., None]) -> Iterator[None]:
    """Call `act` in the main thread after so many seconds, unless the block has its own alarm."""
    old = signal.signal(signal.SIGALRM, act)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def end_of(pid: int) -> Callable[[], object]:
    """Return what waits for the end of any process, which may be gone by then."""
    handle = os.pidfd_open(pid)
    return lambda: select.select([handle], [], [])


def has_ended(pid: int, seconds: float) -> bool:
    """Wait for the end of any process; return whether it came in time."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        return bool(poller.poll(seconds * 1000))
    finally:
        os.close(handle)


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
