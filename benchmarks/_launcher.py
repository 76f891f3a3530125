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

usage: _launcher.py CHILD CONTENDER TIMEOUT
    TIMEOUT: seconds passed to each call that waits, or ``none``
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import importlib.metadata
import mmap
import multiprocessing.connection
import multiprocessing.context
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing import popen_fork, util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

_STAMP_BYTES = 8


@dataclass(frozen=True)
class _Command:
    """The command line of one child and the descriptors that it inherits."""

    argv: list[str]
    stdin: int
    inherited: tuple[int, ...]

    def spawn(self) -> int:
        """Start the child; it inherits every descriptor of ours that is inheritable."""
        return os.posix_spawn(
            self.argv[0],
            self.argv,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, self.stdin, 0)],
        )


class _Popen(popen_fork.Popen):
    """
    The ``Popen`` of the fork start method, with a child that runs a command.

    To the launcher the process is like any other of multiprocessing: the sentinel is a pipe whose
    other end only the child holds, and the status comes from ``waitpid``. A target that calls
    ``exec`` would not do: multiprocessing makes the sentinel close at that moment.
    """

    def _launch(self, process: BaseProcess) -> None:
        assert isinstance(process, _Process)
        self.sentinel, held_by_child = os.pipe()
        os.set_inheritable(held_by_child, True)
        self.pid = process.command.spawn()
        os.close(held_by_child)
        self.finalizer = util.Finalize(self, os.close, (self.sentinel,))


class _Process(multiprocessing.context.ForkProcess):
    """A multiprocessing process that runs a command."""

    def __init__(self, command: _Command) -> None:
        super().__init__()
        self.command = command

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _Popen:  # noqa: N802 - multiprocessing's name
        return _Popen(process_obj)


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # imported from a source tree


class _Contender(abc.ABC):
    """One way to wait for children."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout

    @abc.abstractmethod
    def load(self) -> str:
        """Import what is needed and return its version."""

    @abc.abstractmethod
    def start(self, command: _Command) -> int:
        """Start a child of the current batch and return its pid."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Do what has to be done once, after the last start of a batch."""

    @abc.abstractmethod
    def wait_one(self, index: int, /) -> None:
        """Block until child ``index``, the only one that is about to exit, has been reaped."""

    @abc.abstractmethod
    def wait_all(self) -> None:
        """Block until all children of the batch have been reaped."""

    @abc.abstractmethod
    def forget(self) -> None:
        """Drop the children of the batch, all of which have been reaped."""


class _MultiprocessingContender(_Contender):
    """Base of those that wait for multiprocessing processes."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(timeout)
        self.processes: list[_Process] = []

    def start(self, command: _Command) -> int:
        process = _Process(command)
        process.start()
        self.processes.append(process)
        assert process.pid is not None, "a process that has been started has a pid"
        return process.pid

    def forget(self) -> None:
        self.processes = []


class _ContextContender(_MultiprocessingContender):
    """A ``ProcessContext``, of flamespawn or of torch, which have the same interface."""

    package: str
    module: str
    report: object  # what stands for "this process reports no error"

    def load(self) -> str:
        self.make_context = importlib.import_module(self.module).ProcessContext
        return _version_of(self.package)

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


class _Flamespawn(_ContextContender):
    package = module = "flamespawn"
    report = None


class _Torch(_ContextContender):
    package = "torch"
    module = "torch.multiprocessing.spawn"
    report = os.devnull


class _ConnectionWait(_MultiprocessingContender):
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


class _OneProcessContender(_Contender):
    """Base of those that wait for a single process, and are told for which."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(timeout)
        self.processes: list[Any] = []

    def prepare(self) -> None:
        """Nothing: these have no state that spans processes."""

    def wait_one(self, index: int, /) -> None:
        self.processes[index].wait(self.timeout)

    def wait_all(self) -> None:
        for process in self.processes:
            process.wait(self.timeout)

    def forget(self) -> None:
        self.processes = []


class _Psutil(_OneProcessContender):
    """``psutil.Process.wait``."""

    def load(self) -> str:
        self.psutil = importlib.import_module("psutil")
        return _version_of("psutil")

    def start(self, command: _Command) -> int:
        pid = command.spawn()
        self.processes.append(self.psutil.Process(pid))
        return pid


class _Subprocess(_OneProcessContender):
    """``subprocess.Popen.wait``."""

    def load(self) -> str:
        return platform.python_version()

    def start(self, command: _Command) -> int:
        process = subprocess.Popen(command.argv, stdin=command.stdin, pass_fds=command.inherited)
        self.processes.append(process)
        return process.pid


CONTENDERS: dict[str, Callable[[float | None], _Contender]] = {
    "flamespawn": _Flamespawn,
    "torch": _Torch,
    "multiprocessing": _ConnectionWait,
    "psutil": _Psutil,
    "subprocess": _Subprocess,
}


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
        os.ftruncate(self._slots, plan.count * _STAMP_BYTES)
        self._stamps = mmap.mmap(self._slots, plan.count * _STAMP_BYTES, prot=mmap.PROT_READ)

    def start(self, contender: _Contender, child: str) -> None:
        """Start the children and return when all of them wait for their release."""
        # The children hold the write end of this pipe until they are ready.
        ready, held_by_children = os.pipe()
        os.set_inheritable(held_by_children, True)
        inherited = (self._slots, held_by_children)
        reader = -1
        for i in range(self.plan.count):
            if i <= self.plan.own_pipes:
                if reader >= 0:
                    os.close(reader)
                reader, writer = os.pipe()
                self.releases.append(writer)
            delay = self.plan.first_ns + i * self.plan.step_ns
            argv = [child, str(self._slots), str(i), str(held_by_children), str(delay)]
            self.pids.append(contender.start(_Command(argv, reader, inherited)))
        os.close(reader)
        os.close(held_by_children)
        contender.prepare()
        os.read(ready, 1)
        os.close(ready)

    def stamp_ns(self, index: int) -> int:
        """When child ``index`` exited, or 0 when it has not."""
        start = index * _STAMP_BYTES
        return int.from_bytes(self._stamps[start : start + _STAMP_BYTES], sys.byteorder)

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


def _round(contender: _Contender, batch: _Batch, index: int) -> int:
    """Release one child, wait for it, and return how long the news took, in nanoseconds."""
    os.write(batch.releases[index], b"x")
    contender.wait_one(index)
    returned_ns = time.monotonic_ns()
    stamp_ns = batch.stamp_ns(index)
    if stamp_ns == 0 or not _is_reaped(batch.pids[index]):
        msg = f"{type(contender).__name__} returned before the child had been reaped"
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


def _latency(contender: _Contender, child: str, arguments: list[str]) -> None:
    others, victims, delay_ns = map(int, arguments)
    with contextlib.closing(_Batch(_Plan(others + victims, victims, delay_ns, 0))) as batch:
        batch.start(contender, child)
        print("started", flush=True)
        for index in range(victims):
            _read_command("round")
            print(_round(contender, batch, index), flush=True)
        _read_command("finish")
    contender.wait_all()
    contender.forget()
    print("done", flush=True)


def _drain(contender: _Contender, child: str, arguments: list[str]) -> None:
    count, first_ns, step_ns = map(int, arguments)
    with contextlib.closing(_Batch(_Plan(count, 0, first_ns, step_ns))) as batch:
        batch.start(contender, child)
        os.write(batch.releases[0], b"x" * count)
        print("started", flush=True)
        before = resource.getrusage(resource.RUSAGE_SELF)
        contender.wait_all()
        after = resource.getrusage(resource.RUSAGE_SELF)
    contender.forget()
    user_us = (after.ru_utime - before.ru_utime) * 1e6
    system_us = (after.ru_stime - before.ru_stime) * 1e6
    print(round(user_us), round(system_us), flush=True)


def main() -> None:
    """Serve the driver until it closes our standard input."""
    child, name, timeout = sys.argv[1:]
    contender = CONTENDERS[name](None if timeout == "none" else float(timeout))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        version = contender.load()
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        print("absent", name, flush=True)
        return
    print("hello", version, flush=True)
    commands = {"latency": _latency, "drain": _drain}
    while line := sys.stdin.readline():
        command, *arguments = line.split()
        commands[command](contender, child, arguments)


if __name__ == "__main__":
    main()
