"""What ranks of the tests start, and how to wait for the end of processes that are not ours."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import psutil

if os.name == "nt":
    import system_windows as system
else:
    import system_posix as system

has_ended = system.has_ended

FOREVER = 600
# A program that does nothing. It also ends with its standard input, which is the test's own pipe.
SLEEPER = (sys.executable, "-S", "-c", f"import time; time.sleep({FOREVER})")


def start_program(pipe: Connection, *, detached: bool = True) -> None:
    """Start a program in a session of its own and send its pid."""
    process = subprocess.Popen(SLEEPER, start_new_session=detached)
    pipe.send(process.pid)


def start_without_environment(pipe: Connection) -> None:
    """Start a program that inherits nothing by which it could be known."""
    process = subprocess.Popen(SLEEPER, start_new_session=True, env={})
    pipe.send(process.pid)


def fork(pipe: Connection) -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(FOREVER)
        os._exit(0)
    pipe.send(pid)


def daemonize(pipe: Connection) -> None:
    """Fork twice, in a new session, and close everything, as daemons do; send the pid."""
    _make_daemon(pipe, lambda: time.sleep(FOREVER))


def daemonize_and_become_a_program(pipe: Connection) -> None:
    _make_daemon(pipe, lambda: os.execv(SLEEPER[0], SLEEPER))


def _make_daemon(pipe: Connection, work: Callable[[], object]) -> None:
    """Return when the daemon has sent its pid: it may be ended as soon as this process fails."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            pipe.send(os.getpid())
            os.write(write_end, b"sent")
            os.closerange(0, 256)
            work()
        os._exit(0)
    os.waitpid(pid, 0)
    os.read(read_end, 4)
    os.close(read_end)
    os.close(write_end)


# What is as independent of its parent as it can be.
leave = daemonize if hasattr(os, "fork") else start_program


@contextlib.contextmanager
def killed_at_end(pids: list[int]) -> Iterator[None]:
    """Kill processes whose pids are appended to the list meanwhile, should they be left."""
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def wait_until_stopped(pid: int) -> None:
    """Wait until a process that is not our child has stopped; nobody else is told."""
    deadline = time.monotonic() + 60
    while state_of(pid) != "T":
        assert time.monotonic() < deadline
        time.sleep(0.001)


def switches(pid: int) -> int:
    """Return how often the threads of a process have gone to sleep."""
    count = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        count += int(lines["voluntary_ctxt_switches"])
    return count


def are_silent(pids: list[int]) -> bool:
    """Return whether no thread of these processes ran within a second; time is what it is about."""
    before = [switches(pid) for pid in pids]
    time.sleep(1)
    return [switches(pid) for pid in pids] == before
