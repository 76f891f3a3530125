"""
The kinds of children that the launchers of join.py wait for.

Whatever the kind, a child waits for one byte, stays away for a while so that its launcher is surely
asleep by then, writes the time into its slot of a shared mapping, and leaves. At the end of its
input, at any moment, it leaves at once and without a stamp: the launcher has gone.
"""

from __future__ import annotations

import abc
import mmap
import multiprocessing.context
import os
import select
import struct
import time
from dataclasses import dataclass
from multiprocessing import popen_fork, util
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess
    from pathlib import Path

STAMP = struct.Struct("=q")


@dataclass(frozen=True)
class Orders:
    """
    What one child is told.

    Attributes:
        slot: the index of its time stamp.
        delay_ns: how long it stays after its release.
        release: the descriptor that its byte comes from.
        slots: the descriptor of the time stamps.
        ready: a descriptor that it closes when it is ready.
        launchers: descriptors that it must not keep if it inherits them: the write ends of the
            pipes whose end of file tells all children that the launcher has gone.
    """

    slot: int
    delay_ns: int
    release: int
    slots: int
    ready: int
    launchers: Sequence[int]


@dataclass(frozen=True)
class Child(abc.ABC):
    """A child of one kind; the programs are in ``directory``."""

    orders: Orders
    directory: Path

    @abc.abstractmethod
    def process(self) -> BaseProcess:
        """Return a process of multiprocessing that is this child once it is started."""


class Program(Child):
    """The C program ``child.c``: the kernel has next to nothing to take apart."""

    @property
    def argv(self) -> list[str]:
        """The command line; the release is to be its standard input."""
        orders = self.orders
        numbers = (orders.slots, orders.slot, orders.ready, orders.delay_ns)
        return [str(self.directory / "child"), *map(str, numbers)]

    def process(self) -> BaseProcess:
        """Return a process of multiprocessing that runs the program."""
        return _ProgramProcess(self)


class _ProgramPopen(popen_fork.Popen):
    """
    The ``Popen`` of the fork start method, with a child that runs a program.

    To the launcher the process is like any other of multiprocessing: the sentinel is a pipe whose
    other end only the child holds, and the status comes from ``waitpid``. A target that calls
    ``exec`` would not do: multiprocessing makes the sentinel close at that moment.
    """

    def _launch(self, process: BaseProcess) -> None:
        assert isinstance(process, _ProgramProcess)
        child = process.child
        self.sentinel, held_by_child = os.pipe()
        os.set_inheritable(held_by_child, True)
        # The child inherits every descriptor of ours that is inheritable.
        actions = [(os.POSIX_SPAWN_DUP2, child.orders.release, 0)]
        self.pid = os.posix_spawn(child.argv[0], child.argv, os.environ, file_actions=actions)
        os.close(held_by_child)
        self.finalizer = util.Finalize(self, os.close, (self.sentinel,))


class _ProgramProcess(multiprocessing.context.ForkProcess):
    """A multiprocessing process that runs a program."""

    def __init__(self, child: Program) -> None:
        super().__init__()
        self.child = child

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _ProgramPopen:  # noqa: N802 - multiprocessing's name
        return _ProgramPopen(process_obj)


class Rank(Child):
    """
    A Python process that multiprocessing has forked from the launcher.

    It has the launcher's memory, so the time that the kernel needs to take it apart depends on
    what the launcher has imported.
    """

    def process(self) -> BaseProcess:
        """Return a process of multiprocessing that does what the C program does."""
        return multiprocessing.context.ForkProcess(target=_run_rank, args=(self.orders,))


def _run_rank(orders: Orders) -> NoReturn:
    stamps = mmap.mmap(orders.slots, 0)
    offset = orders.slot * STAMP.size
    pack_into, now_ns, leave = STAMP.pack_into, time.monotonic_ns, os._exit
    # Take the page fault now, not between the clock and the exit.
    pack_into(stamps, offset, 0)
    for descriptor in (*orders.launchers, orders.slots, orders.ready):
        os.close(descriptor)
    # No event is asked for: only the hang-up of the launcher can cut it short.
    launcher = select.poll()
    launcher.register(orders.release, 0)
    if os.read(orders.release, 1) and not launcher.poll(orders.delay_ns / 1e6):
        pack_into(stamps, offset, now_ns())
    leave(0)


KINDS: dict[str, type[Child]] = {"program": Program, "rank": Rank}
