"""Finding, waiting for and ending the processes that a job has left."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# In the environment of a worker and of all that it starts.
MARK = "FLAMESPAWN_CHAOS"

# The start of a process is known in hundredths of a second.
_TICK = 0.02
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """A process that is there, or a zombie."""

    pid: int
    parent: int
    state: str
    name: str
    started: str

    @property
    def is_dead(self) -> bool:
        return self.state in "ZX"

    @property
    def is_stopped(self) -> bool:
        return self.state == "T"


def become_subreaper() -> None:
    """Let every orphan below become a child of this process, so that none gets lost."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def look_at(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    return Process(pid, int(fields[1]), fields[0], head.partition("(")[2], fields[19])


def runs(pid: int, noted_at: int) -> bool:
    """Return whether the process runs that had this pid at a time of the monotonic clock, in ns."""
    process = look_at(pid)
    if process is None or process.is_dead:
        return False
    # Pids are given out again; a process that has one now may have started later.
    return int(process.started) / os.sysconf("SC_CLK_TCK") <= noted_at / 1e9 + _TICK


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def find(mark: str) -> dict[int, Process]:
    """Return what descends from this process, and what carries the mark, but for this process."""
    here = os.getpid()
    wanted = f"{MARK}={mark}".encode()
    everybody = {
        int(name): process
        for name in os.listdir("/proc")
        if name.isdigit() and (process := look_at(int(name))) is not None
    }
    found: dict[int, Process] = {}
    for pid, process in everybody.items():
        ancestor: Process | None = process
        seen: set[int] = set()
        while ancestor is not None and ancestor.pid not in seen:
            seen.add(ancestor.pid)
            if ancestor.parent == here or ancestor.parent in found:
                found[pid] = process
                break
            ancestor = everybody.get(ancestor.parent)
        if pid not in found and pid != here and _has_mark(pid, wanted):
            found[pid] = process
    return found


def reap() -> None:
    """Collect the zombies among the children of this process."""
    try:
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
            continue
    except ChildProcessError:
        return


def wait_until_gone(
    mark: str, seconds: float, may_stay: Callable[[], set[int] | None]
) -> dict[int, Process]:
    """
    Wait until all that a job has started is gone, but for some; return what is left, without them.

    Args:
        mark: the worker's.
        seconds: how long at most.
        may_stay: returns the pids that are not waited for, None for all; asked after each end.
    """
    deadline = time.monotonic() + seconds
    while True:
        reap()
        there = {pid: process for pid, process in find(mark).items() if not process.is_dead}
        # After the look: who was dead by then has said all that it had to say.
        staying = may_stay()
        if staying is None:
            return {}
        left = {pid: process for pid, process in there.items() if pid not in staying}
        if not left or time.monotonic() >= deadline:
            return left
        _wait_for_one(list(left), deadline)


def _wait_for_one(pids: list[int], deadline: float) -> None:
    """Wait until one of these processes has ended, or until the deadline."""
    poller = select.poll()
    handles = []
    try:
        for pid in pids:
            try:
                handles.append(os.pidfd_open(pid))
            except ProcessLookupError:
                return
            poller.register(handles[-1], select.POLLIN)
        poller.poll(max(deadline - time.monotonic(), 0) * 1000)
    finally:
        for handle in handles:
            os.close(handle)


def kill(process: Process) -> None:
    """End a process that `find` has found, unless another has its pid by now."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = look_at(process.pid)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def end_all(mark: str) -> None:
    """End all that a job has left."""
    while True:
        left = {pid: process for pid, process in find(mark).items() if not process.is_dead}
        for process in left.values():
            kill(process)
        if not left:
            reap()
            return
        _wait_for_one(list(left), time.monotonic() + 1)
        reap()
