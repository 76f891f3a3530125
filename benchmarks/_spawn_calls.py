"""
One launcher process of start.py or payload.py: it starts ranks once, in one way.

Its only argument is an ``Order`` as JSON; its answer is one line of JSON with what it has measured.
With ``measure="memory"`` it takes part in a conversation, one line per message: it says ``ready``,
and starts the ranks when told ``start``; it says ``held`` when all of them have read their array,
and has them write to it when told ``write``; the usual line of JSON is its last.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLOOR = "floor"
FLAMESPAWN = "flamespawn"
MULTIPROCESSING = "multiprocessing"
TORCH = "torch"

Function = Callable[..., object]
Measured = dict[str, float]


@dataclass(frozen=True)
class Order:
    """
    What a launcher is to do.

    Attributes:
        contender: one of the names above.
        ranks: how many to start.
        module: has the function that the ranks run; what it imports is what they pay for.
        function: its name.
        measure: ``time``, ``end``, ``cpu`` or ``memory``; see the functions below.
        kind: of the argument, ``bytes`` or ``array`` (numpy, float32); none: no argument.
        size: of the argument in bytes.
    """

    contender: str
    ranks: int
    module: str = "_ranks"
    function: str = "noop"
    measure: str = "time"
    kind: str | None = None
    size: int = 0


class _Library:
    """A package with torch's interface."""

    def __init__(self, module: str) -> None:
        self._module = importlib.import_module(module)

    def spawn(self, fn: Function, args: tuple[Any, ...], ranks: int) -> None:
        self._module.spawn(fn, args, nprocs=ranks)

    def start(self, fn: Function, args: tuple[Any, ...], ranks: int) -> Callable[[], None]:
        """Start the ranks and return what waits for them."""
        context = self._module.start_processes(fn, args, nprocs=ranks, join=False)

        def join() -> None:
            while not context.join():
                pass

        return join


class _Multiprocessing:
    """The standard library: start all processes, join all."""

    def spawn(self, fn: Function, args: tuple[Any, ...], ranks: int) -> None:
        self.start(fn, args, ranks)()

    def start(self, fn: Function, args: tuple[Any, ...], ranks: int) -> Callable[[], None]:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=fn, args=(rank, *args)) for rank in range(ranks)]
        for process in processes:
            process.start()

        def join() -> None:
            for process in processes:
                process.join()
            if any(process.exitcode for process in processes):
                msg = "a rank has failed"
                raise RuntimeError(msg)

        return join


_Contender = _Library | _Multiprocessing


def _load(name: str) -> _Contender:
    if name == MULTIPROCESSING:
        return _Multiprocessing()
    return _Library("torch.multiprocessing" if name == TORCH else name)


def _argument(order: Order) -> tuple[Any, ...]:
    """Return the argument and its size; no page of it is one that the kernel can share anyway."""
    if order.kind is None:
        return ()
    if order.kind == "bytes":
        return (b"x" * order.size, order.size)
    numpy = importlib.import_module("numpy")
    return (numpy.ones(order.size // 4, numpy.float32), order.size)


def _time(contender: _Contender, fn: Function, args: tuple[Any, ...], ranks: int) -> Measured:
    """Measure from just before the call until it has returned."""
    gc.collect()
    before = time.monotonic_ns()
    contender.spawn(fn, args, ranks)
    return {"ms": (time.monotonic_ns() - before) / 1e6}


def _end(contender: _Contender, fn: Function, args: tuple[Any, ...], ranks: int) -> Measured:
    """Measure the same, and from the end of the last rank's function until the return."""
    with tempfile.NamedTemporaryFile(prefix="stamps-") as file:
        gc.collect()
        before = time.monotonic_ns()
        contender.spawn(fn, (*args, file.name), ranks)
        returned = time.monotonic_ns()
        stamps = struct.unpack(f"={ranks}q", file.read())
    return {"ms": (returned - before) / 1e6, "end_ms": (returned - max(stamps)) / 1e6}


def _cpu(contender: _Contender, fn: Function, args: tuple[Any, ...], ranks: int) -> Measured:
    """Measure the CPU time of the start, and of the start and the wait, per rank."""
    gc.collect()
    before = _cpu_ms()
    join = contender.start(fn, args, ranks)
    started = _cpu_ms()
    join()
    return {
        "start_ms_per_rank": (started - before) / ranks,
        "total_ms_per_rank": (_cpu_ms() - before) / ranks,
    }


def _cpu_ms() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e3


def _memory(contender: _Contender, fn: Function, args: tuple[Any, ...], ranks: int) -> Measured:
    """Let the driver measure the memory; check that ranks do not see each other's writing."""
    ranks_module = importlib.import_module(fn.__module__)
    array, _size = args
    with tempfile.TemporaryDirectory(prefix="payload-benchmark-") as directory:
        names = (ranks_module.READY, ranks_module.WRITE, ranks_module.CHECK)
        for name in names:
            os.mkfifo(Path(directory, name))
        # Open for both, so that neither side waits for the other; ranks see the end of a launcher.
        ready, *gates = (os.open(Path(directory, name), os.O_RDWR) for name in names)
        gc.collect()
        _say("ready", expect="start")
        join = contender.start(fn, (*args, ranks, directory), ranks)
        for number, gate in enumerate(gates):
            for _ in range(ranks):
                os.read(ready, 1)
            if number == 0:
                _say("held", expect="write")
            os.write(gate, b"x" * ranks)
        join()
    if array.min() != 1 or array.max() != 1:
        msg = "the launcher sees what a rank has written"
        raise RuntimeError(msg)
    return {}


def _say(word: str, *, expect: str) -> None:
    print(word, flush=True)
    if sys.stdin.readline().split() != [expect]:
        sys.exit(1)


def main() -> None:
    """Carry out the order and print what was measured."""
    order = Order(**json.loads(sys.argv[1]))
    contender = _load(order.contender)
    fn = getattr(importlib.import_module(order.module), order.function)
    measures = {"time": _time, "end": _end, "cpu": _cpu, "memory": _memory}
    print(json.dumps(measures[order.measure](contender, fn, _argument(order), order.ranks)))
