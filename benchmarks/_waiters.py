"""The ways to wait for children that join.py compares, as its launchers use them."""

from __future__ import annotations

import abc
import contextlib
import ctypes
import importlib
import importlib.metadata
import multiprocessing.connection
import multiprocessing.process
import os
import platform
import subprocess
import time
from typing import TYPE_CHECKING, Any

from _children import Program

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from _children import Child


def import_package(package: str) -> str:
    """Import a package and return its version."""
    importlib.import_module(package)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # imported from a source tree


class Waiter(abc.ABC):
    """
    One way to wait for children.

    Args:
        timeout: seconds, passed to each call that waits, or None.
        library: the compiled ``waitid_stamp.c``.
    """

    def __init__(self, timeout: float | None, library: ctypes.PyDLL) -> None:
        self.timeout = timeout
        self.library = library

    @abc.abstractmethod
    def load(self) -> str:
        """Import what is needed and return its version."""

    @abc.abstractmethod
    def start(self, child: Child) -> int:
        """Start a child of the current batch and return its pid."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Do what has to be done once, after the last start of a batch."""

    @abc.abstractmethod
    def wait_one(self, index: int, /) -> None:
        """Block until child ``index``, the only one that is about to exit, has been reaped."""

    def timed_wait_one(self, index: int, /) -> int:
        """Do the same and return the time in nanoseconds at which the wait was over."""
        self.wait_one(index)
        return time.monotonic_ns()

    @abc.abstractmethod
    def wait_all(self) -> None:
        """Block until all children of the batch have been reaped."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Drop the children of the batch, all of which have been reaped."""


class _MultiprocessingWaiter(Waiter):
    """Base of those whose children are started by multiprocessing."""

    def __init__(self, timeout: float | None, library: ctypes.PyDLL) -> None:
        super().__init__(timeout, library)
        self.processes: list[BaseProcess] = []

    def start(self, child: Child) -> int:
        process = child.process()
        process.start()
        # multiprocessing asks all children that it knows of how they are, at each start.
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        self.processes.append(process)
        assert process.pid is not None, "a process that has been started has a pid"
        return process.pid

    def forget(self) -> None:
        self.processes = []


class _ContextWaiter(_MultiprocessingWaiter):
    """A ``ProcessContext``, of flamespawn or of torch, which have the same interface."""

    package: str
    module: str
    report: object  # what stands for "this process reports no error"

    def load(self) -> str:
        version = import_package(self.package)
        self.make_context = importlib.import_module(self.module).ProcessContext
        return version

    def prepare(self) -> None:
        reports = [self.report] * len(self.processes)
        self.context: Any = self.make_context(self.processes, reports)

    def wait_one(self, _index: int, /) -> None:
        self.context.join(self.timeout)

    def wait_all(self) -> None:
        while not self.context.join(self.timeout):
            pass

    def forget(self) -> None:
        self.context = None
        super().forget()


class _FlamespawnLoop(_ContextWaiter):
    package = module = "flamespawn"
    report = None


class _Flamespawn(_FlamespawnLoop):
    def wait_all(self) -> None:
        """Wait as ``spawn(join=True)`` does; torch's loops over ``join`` instead."""
        with self.context:
            pass


class _Torch(_ContextWaiter):
    package = "torch"
    module = "torch.multiprocessing.spawn"
    report = os.devnull


class _ConnectionWait(_MultiprocessingWaiter):
    """``multiprocessing.connection.wait`` on the sentinels, then ``join`` of those it returns."""

    def load(self) -> str:
        return platform.python_version()

    def prepare(self) -> None:
        self.remaining = {process.sentinel: process for process in self.processes}

    def wait_one(self, _index: int, /) -> None:
        for sentinel in multiprocessing.connection.wait(self.remaining, self.timeout):
            assert isinstance(sentinel, int), "only sentinels are waited for"
            self.remaining.pop(sentinel).join()

    def wait_all(self) -> None:
        while self.remaining:
            self.wait_one(0)


class _ToldWhich(_MultiprocessingWaiter):
    """Base of those that wait for a single process, and are told for which."""

    def prepare(self) -> None:
        """Nothing: these have no state that spans processes."""


class _Floor(_ToldWhich):
    """
    ``waitid`` in C.

    ``PyDLL`` keeps the GIL, which nobody else wants: of all ways to call C it adds least.
    """

    def load(self) -> str:
        self.pids: list[int] = []
        self.waitid_stamp = self.library.waitid_stamp
        self.waitid_stamp.argtypes = [ctypes.c_int]
        self.waitid_stamp.restype = ctypes.c_int64
        return "C"

    def start(self, child: Child) -> int:
        pid = super().start(child)
        self.pids.append(pid)
        return pid

    def wait_one(self, index: int, /) -> None:
        self.timed_wait_one(index)

    def timed_wait_one(self, index: int, /) -> int:
        time_ns: int = self.waitid_stamp(self.pids[index])
        if time_ns < 0:
            raise OSError(-time_ns, os.strerror(-time_ns))
        return time_ns

    def wait_all(self) -> None:
        for index in range(len(self.pids)):
            with contextlib.suppress(ChildProcessError):  # reaped in its round
                self.wait_one(index)

    def forget(self) -> None:
        self.pids = []
        super().forget()


class _Psutil(_ToldWhich):
    """``psutil.Process.wait``."""

    def load(self) -> str:
        version = import_package("psutil")
        self.psutil = importlib.import_module("psutil")
        self.seen: list[Any] = []
        return version

    def start(self, child: Child) -> int:
        pid = super().start(child)
        self.seen.append(self.psutil.Process(pid))
        return pid

    def wait_one(self, index: int, /) -> None:
        self.seen[index].wait(self.timeout)

    def wait_all(self) -> None:
        for process in self.seen:
            process.wait(self.timeout)

    def forget(self) -> None:
        self.seen = []
        super().forget()


class _Subprocess(Waiter):
    """``subprocess.Popen.wait``; it cannot fork."""

    def load(self) -> str:
        self.processes: list[subprocess.Popen[bytes]] = []
        return platform.python_version()

    def start(self, child: Child) -> int:
        assert isinstance(child, Program), "subprocess runs programs only"
        orders = child.orders
        inherited = (orders.slots, orders.ready)
        process = subprocess.Popen(child.argv, stdin=orders.release, pass_fds=inherited)
        self.processes.append(process)
        return process.pid

    def prepare(self) -> None:
        """Nothing: there is no state that spans processes."""

    def wait_one(self, index: int, /) -> None:
        self.processes[index].wait(self.timeout)

    def wait_all(self) -> None:
        for process in self.processes:
            process.wait(self.timeout)

    def forget(self) -> None:
        self.processes = []


WAITERS: dict[str, type[Waiter]] = {
    "flamespawn": _Flamespawn,
    "flamespawn-loop": _FlamespawnLoop,
    "torch": _Torch,
    "multiprocessing": _ConnectionWait,
    "floor-one": _Floor,
    "floor-psutil": _Floor,
    "floor-torch": _Floor,
    "psutil": _Psutil,
    "subprocess": _Subprocess,
}
