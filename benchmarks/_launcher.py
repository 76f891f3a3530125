"""
One launcher process of join.py: it starts children and waits for them in one way.

Each contender runs in a launcher of its own, so that it has only its own children, and does one
thing at a time when told to, so that the rounds of all contenders can be interleaved. The C floor
(waitid_floor.c) speaks the same protocol, one line per message:

``hello VERSION`` / ``absent NAME``
    The first answer: the contender can run, or the package that it needs is not installed.
``latency OTHERS VICTIMS DELAY_NS``
    Start ``OTHERS`` children that stay and ``VICTIMS`` that will exit one by one, and answer
    ``started``. Then, for each of ``VICTIMS`` lines ``round``: release the next victim, wait for
    it, and answer the nanoseconds from its time stamp to the return of the wait. At last, for the
    line ``finish``: end the others, wait for them, and answer ``done``.
``drain COUNT FIRST_NS STEP_NS``
    Start ``COUNT`` children, release them all, answer ``started``, and wait until all have ended.
    Child ``i`` exits ``FIRST_NS + i * STEP_NS`` after its release. Answer the user and the system
    CPU time of the wait in microseconds.

usage: _launcher.py DIRECTORY KIND WAITER TIMEOUT [PACKAGE ...]
    DIRECTORY: where the compiled programs are
    KIND: of the children, from ``_children.py``
    WAITER: the way to wait, from ``_waiters.py``
    TIMEOUT: seconds passed to each call that waits, or ``none``
    PACKAGE: what is imported besides, so that forked children are like those of other launchers
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from _children import KINDS, STAMP, Child, Orders
from _waiters import WAITERS, Waiter, import_package

if TYPE_CHECKING:
    from collections.abc import Callable

    # Makes a child of the launcher's kind.
    MakeChild = Callable[[Orders], Child]


@dataclass(frozen=True)
class _Plan:
    """
    What the children of one batch do; see the protocol above.

    The first ``own_pipes`` children are released one by one, the others share one pipe.
    """

    count: int
    own_pipes: int
    first_ns: int
    step_ns: int


class _Batch:
    """
    Children that are started together and wait for their release.

    Closing the batch releases those that still wait: they see the end of their input and exit.
    """

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self.pids: list[int] = []
        self.releases: list[int] = []  # own_pipes + 1 write ends; the last one is the shared one
        self._slots = os.memfd_create("slots", 0)
        os.ftruncate(self._slots, plan.count * STAMP.size)
        self._stamps = mmap.mmap(self._slots, plan.count * STAMP.size, prot=mmap.PROT_READ)

    def start(self, waiter: Waiter, make_child: MakeChild) -> None:
        """Start the children and return when all of them wait for their release."""
        # The children hold the write end of this pipe until they are ready.
        ready, held_by_children = os.pipe()
        os.set_inheritable(held_by_children, True)
        reader = -1
        for i in range(self.plan.count):
            if i <= self.plan.own_pipes:
                if reader >= 0:
                    os.close(reader)
                reader, writer = os.pipe()
                self.releases.append(writer)
            orders = Orders(
                slot=i,
                delay_ns=self.plan.first_ns + i * self.plan.step_ns,
                release=reader,
                slots=self._slots,
                ready=held_by_children,
                launchers=self.releases,
            )
            self.pids.append(waiter.start(make_child(orders)))
        os.close(reader)
        os.close(held_by_children)
        waiter.prepare()
        os.read(ready, 1)
        os.close(ready)

    def stamp_ns(self, index: int) -> int:
        """When child ``index`` exited, or 0 when it has not."""
        stamp_ns: int = STAMP.unpack_from(self._stamps, index * STAMP.size)[0]
        return stamp_ns

    def close(self) -> None:
        """Let go of the children; at the end of the interpreter nothing else would."""
        for descriptor in (*self.releases, self._slots):
            os.close(descriptor)
        self._stamps.close()


def _is_reaped(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _round(waiter: Waiter, batch: _Batch, index: int) -> int:
    """Release one child, wait for it, and return how long the news took, in nanoseconds."""
    os.write(batch.releases[index], b"x")
    returned_ns = waiter.timed_wait_one(index)
    stamp_ns = batch.stamp_ns(index)
    if stamp_ns == 0 or not _is_reaped(batch.pids[index]):
        msg = f"{type(waiter).__name__} returned before the child had been reaped"
        raise RuntimeError(msg)
    return returned_ns - stamp_ns


def _read_command(expected: str) -> None:
    """Read one line; at the end of the input leave, since the driver has gone."""
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    if line.split() != [expected]:
        msg = f"expected {expected!r}, not {line!r}"
        raise RuntimeError(msg)


def _latency(waiter: Waiter, make_child: MakeChild, arguments: list[str]) -> None:
    others, victims, delay_ns = map(int, arguments)
    with contextlib.closing(_Batch(_Plan(others + victims, victims, delay_ns, 0))) as batch:
        batch.start(waiter, make_child)
        print("started", flush=True)
        for index in range(victims):
            _read_command("round")
            print(_round(waiter, batch, index), flush=True)
        _read_command("finish")
    waiter.wait_all()
    waiter.forget()
    print("done", flush=True)


def _drain(waiter: Waiter, make_child: MakeChild, arguments: list[str]) -> None:
    count, first_ns, step_ns = map(int, arguments)
    with contextlib.closing(_Batch(_Plan(count, 0, first_ns, step_ns))) as batch:
        batch.start(waiter, make_child)
        os.write(batch.releases[0], b"x" * count)
        print("started", flush=True)
        before = resource.getrusage(resource.RUSAGE_SELF)
        waiter.wait_all()
        after = resource.getrusage(resource.RUSAGE_SELF)
    waiter.forget()
    user_us = (after.ru_utime - before.ru_utime) * 1e6
    system_us = (after.ru_stime - before.ru_stime) * 1e6
    print(round(user_us), round(system_us), flush=True)


def _load(waiter: Waiter, packages: list[str]) -> str:
    """Return the waiter's version; what is missing leaves as ``ModuleNotFoundError``."""
    for package in packages:
        import_package(package)
    return waiter.load()


def main() -> None:
    """Serve the driver until it closes our standard input."""
    directory = Path(sys.argv[1])
    kind, name, timeout, *packages = sys.argv[2:]
    # All load it, for the children's sake; one uses it.
    library = ctypes.PyDLL(str(directory / "waitid_stamp.so"))
    waiter = WAITERS[name](None if timeout == "none" else float(timeout), library)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        version = _load(waiter, packages)
    except ModuleNotFoundError as error:
        if error.name not in (name, *packages):
            raise
        print("absent", error.name, flush=True)
        return
    print("hello", version, flush=True)

    def make_child(orders: Orders) -> Child:
        return KINDS[kind](orders, directory)

    commands = {"latency": _latency, "drain": _drain}
    while line := sys.stdin.readline():
        command, *arguments = line.split()
        commands[command](waiter, make_child, arguments)


if __name__ == "__main__":
    main()
