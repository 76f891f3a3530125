"""
Interrupt the start of ranks at its lines: `interrupted.py METHOD [EVERY [OFFSET [SEED]]] [--cold]`.

For each line that a start executes in this package and in `multiprocessing`, or for each EVERYth
from OFFSET on, one start is made in which a KeyboardInterrupt comes before that line. Nothing may
be left of it, and a start that follows must work. With a SEED a second interrupt comes before some
line of what undoes the start.

Each start has a process of its own, which leads a session: whoever is left in that is found, also
where its parent is gone.
"""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.popen_fork
import multiprocessing.popen_forkserver
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing import forkserver, resource_tracker
from types import FrameType
from typing import Any

import flamespawn
import jobs
from flamespawn import _starts

FOLDERS = tuple(os.path.dirname(module.__file__) for module in (flamespawn, multiprocessing))
RANKS = 2
# More than a second interrupt ever has to choose from.
MOST_LINES_OF_UNDO = 300
SECONDS = 30


class Interrupter:
    """A trace function: counts lines, and raises KeyboardInterrupt before one of them."""

    def __init__(self, line: int | None) -> None:
        self._line = line
        self._pid = os.getpid()
        self.count = 0
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if os.getpid() != self._pid or not frame.f_code.co_filename.startswith(FOLDERS):
            return None
        if event == "line":
            self.count += 1
            if self.count == self._line:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                # Python switches tracing off when this raises. If handlers have to wait, it does
                # not, and the line goes on.
                signal.raise_signal(signal.SIGINT)
        return self


def descriptors() -> dict[str, str]:
    gc.collect()
    helpers = {resource_tracker._resource_tracker._fd, forkserver._forkserver._forkserver_alive_fd}
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) not in helpers:
                found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def state() -> tuple[Any, ...]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return descriptors(), mask, handlers, signal.set_wakeup_fd(-1), threading.active_count()


def children() -> set[int]:
    helpers = {resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid}
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return {int(pid) for pid in file.read().split()} - helpers


def start(start_method: str, line: int | None, second: int | None) -> tuple[Interrupter, bool]:
    """Start ranks and interrupt that; return whether it was interrupted."""
    undo = _starts.Start.undo

    def interrupted_undo(*args: Any) -> None:
        if second is not None and not again.count:
            sys.settrace(again)
        undo(*args)

    interrupter, again = Interrupter(line), Interrupter(second)
    _starts.Start.undo = interrupted_undo  # type: ignore[method-assign]
    try:
        sys.settrace(interrupter)
        try:
            context = flamespawn.start_processes(
                jobs.wait_forever, nprocs=RANKS, join=False, start_method=start_method
            )
        finally:
            sys.settrace(None)
    except KeyboardInterrupt:
        return interrupter, True
    finally:
        _starts.Start.undo = undo  # type: ignore[method-assign]
    context.kill()
    context.stop()
    return interrupter, False


def check(start_method: str, line: int, second: int | None) -> str:
    """Interrupt one start; return where that was, if it was."""
    before = state()
    interrupter, was_interrupted = start(start_method, line, second)
    where = interrupter.where
    assert was_interrupted == bool(where), f"the interrupt was lost: {where}"
    assert children() == set(), f"{where}: left {children()}"
    assert multiprocessing.active_children() == [], where
    assert state() == before, f"{where}: {before} became {state()}"
    flamespawn.start_processes(jobs.nothing, start_method=start_method)
    return where


def members_of(session: int) -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.getsid(int(name)) == session:
                found.add(int(name))
        except ProcessLookupError:
            continue
    return found


def run_alone(function: Any, *args: object) -> tuple[int, str]:
    """Call a function in a new process; return its exit code, and what it has returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            os.close(reader)
            os.write(writer, str(function(*args)).encode())
            os.close(writer)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            # What multiprocessing keeps ends with this.
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # A rank that is left behind may hold the other end.
    os.set_blocking(reader, False)
    result = os.read(reader, 1 << 16).decode() if code == 0 else ""
    os.close(reader)
    deadline = time.monotonic() + SECONDS
    # Helpers of multiprocessing end when they find that the launcher is gone; nobody tells.
    while members_of(pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    for left in members_of(pid):
        with open(f"/proc/{left}/cmdline") as file:
            print("left behind:", file.read().replace("\0", " "))
        os.kill(left, signal.SIGKILL)
        code = code or 2
    return code, result


def main(
    start_method: str,
    every: int = 1,
    offset: int = 0,
    seed: int | None = None,
    *,
    cold: bool = False,
) -> int:
    """Return the number of starts of which something was left."""
    if not cold:
        # Otherwise each start would start one, which has a lot to import.
        resource_tracker.ensure_running()
    code, counted = run_alone(lambda: start(start_method, None, None)[0].count)
    assert code == 0
    numbers = random.Random(seed)
    failed = tried = 0
    for line in range(1 + offset, int(counted) + 1, every):
        second = numbers.randrange(1, MOST_LINES_OF_UNDO) if seed is not None else None
        code, where = run_alone(check, start_method, line, second)
        tried += 1
        if code:
            failed += 1
            print(f"line {line}, second {second}: failed {where}", flush=True)
    print(f"{failed} of {tried} starts failed ({counted} lines)")
    return failed


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--cold"]
    with tempfile.TemporaryDirectory() as folder:
        # Launchers that leave at once do not remove what the fork server had needed.
        tempfile.tempdir = folder
        failures = main(words[0], *map(int, words[1:]), cold="--cold" in sys.argv)
    sys.exit(bool(failures))
