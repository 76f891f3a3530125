"""
How long does it take to start ranks and to wait for them, and what does that cost the launcher?

Each sample is a fresh launcher process that makes one call. Before, it has imported its library and
the module of the ranks, and has called ``gc.collect()``. The samples of all contenders are taken in
turns, in random order, one at a time. All figures are medians; the ratios are those of medians. The
bytecode of the module of the ranks is cached, whatever ``PYTHONDONTWRITEBYTECODE`` says.

*Call.* The time in the launcher from just before ``spawn`` until it has returned, when all ranks
have ended: 1, 8, 32 and 128 ranks with a function that does nothing, from a module that imports
nothing (``noop-N``) or numpy (``numpy-8``), and ranks with torch (``torch-1``, ``torch-8``). The
main module of the launchers is empty. Contenders are flamespawn; multiprocessing, as a loop that
starts all processes and a loop that joins all; and torch, with 8 ranks at most and few samples.
``times_flamespawn`` says how much longer a contender takes than flamespawn. multiprocessing's first
start in a process starts its resource tracker, too, and that is in its figures.

*Floor.* A C program (``spawn_floor.c``) that starts as many bare interpreters at once and waits for
all: ``python -c pass``, or ``python -c 'import numpy'``, or the same with torch, by the interpreter
of the launchers, ``sys.executable``. Its time is taken from before the first start until the last
process has been reaped. What a rank has to do anyway is so on both sides of ``ratio_to_floor``.

*End of function to return.* In ``torch-N`` the last statement of the rank's function writes
``CLOCK_MONOTONIC`` to a file. The figure is the time from the last such stamp until the call has
returned in the launcher. It has the end of the interpreter in it, and of the process.

*Launcher CPU* (``cpu-N``). User and system time of all threads of the launcher (``getrusage``,
``RUSAGE_SELF``), divided by the number of ranks: while ``start_processes(join=False)``, or the loop
that starts, runs (``start``); and until all ranks have been joined, too (``total``). Processes
that a library starts for itself are not in it; what the ranks need is not either.

Not measured: failures and their teardown; arguments (see payload.py); anything but Linux. With
fewer CPUs than ranks most of a call is the ranks' own CPU time: compare ratios between machines,
not milliseconds.

The last line of the output is all figures as JSON. What is not installed is listed as such. Needs a
C compiler (``cc``) and the package ``tabulate``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _measure import Entry, print_table
from _spawn_calls import FLAMESPAWN, FLOOR, MULTIPROCESSING, TORCH, Order
from _spawns import (
    Run,
    Samples,
    entry,
    figure,
    find,
    parse,
    print_promises,
    promise,
    ratio,
    run_benchmark,
    take_samples,
)

_PEERS = (FLAMESPAWN, MULTIPROCESSING)
_ALL = (FLOOR, *_PEERS, TORCH)


@dataclass(frozen=True)
class Scenario:
    """
    One number of ranks of one kind.

    Attributes:
        title: what the tables call it.
        ranks: how many.
        contenders: that are compared.
        samples: of each contender; torch's at most; of each contender if --quick.
        module: of the ranks.
        measure: see ``_spawn_calls.Order``.
    """

    title: str
    ranks: int
    contenders: Sequence[str]
    samples: tuple[int, int, int]
    module: str = "_ranks"
    measure: str = "time"

    def runs(self, arguments: argparse.Namespace) -> list[Run]:
        """Return what is to be done, by the command line."""
        full, of_torch, quick = self.samples
        most: int = arguments.rounds or (quick if arguments.quick else full)
        few = min(most, of_torch) if arguments.slow else 0
        function = "stamp" if self.measure == "end" else "noop"
        return [
            Run(
                Order(contender, self.ranks, self.module, function, self.measure),
                samples=few if contender == TORCH else most,
            )
            for contender in self.contenders
        ]


_NUMPY, _TORCH = "_ranks_numpy", "_ranks_torch"
SCENARIOS = {
    "noop-1": Scenario("1 rank that does nothing", 1, _ALL, (30, 2, 6)),
    "noop-8": Scenario("8 ranks that do nothing", 8, _ALL, (20, 2, 5)),
    "noop-32": Scenario("32 ranks that do nothing", 32, _ALL[:3], (24, 0, 3)),
    "noop-128": Scenario("128 ranks that do nothing", 128, _ALL[:3], (3, 0, 1)),
    "numpy-8": Scenario("8 ranks that import numpy", 8, _ALL, (8, 1, 2), _NUMPY),
    "torch-1": Scenario("1 rank that imports torch", 1, _ALL, (4, 99, 2), _TORCH, "end"),
    "torch-8": Scenario("8 ranks that import torch", 8, _ALL, (2, 99, 1), _TORCH, "end"),
    "cpu-32": Scenario("32 ranks that do nothing", 32, _PEERS, (8, 0, 2), measure="cpu"),
    "cpu-128": Scenario("128 ranks that do nothing", 128, _PEERS, (2, 0, 1), measure="cpu"),
}
_NOT_QUICK = ("torch-1", "torch-8")


def _table(title: str, unit: str, key: str, runs: Sequence[Run], samples: Samples) -> list[Entry]:
    """Print one of the values that were measured, for each contender, and return the entries."""
    floor = figure(samples, find(samples, FLOOR), key) if key == "ms" else None
    flamespawn = figure(samples, find(samples, FLAMESPAWN), key)
    entries = []
    for run in runs:
        if key != "ms" and run.order.contender == FLOOR:
            continue
        measured = figure(samples, run, key)
        ratios: Entry = {"times_flamespawn": ratio(measured, flamespawn)}
        if floor is not None:
            ratios["ratio_to_floor"] = ratio(measured, floor)
        entries.append(entry(run, unit, measured, ratios))
    columns = [f"{unit}.{name}" for name in ("median", "p10", "p90", "n")]
    if floor is not None:
        columns.append("ratio_to_floor")
    print_table(title, [*columns, "times_flamespawn"], entries)
    return entries


def _measure(name: str, arguments: argparse.Namespace, directory: Path) -> tuple[Samples, Entry]:
    """Measure and print one scenario."""
    scenario = SCENARIOS[name]
    runs = scenario.runs(arguments)
    samples = take_samples(runs, directory)
    title = f"{name}: {scenario.title}"
    found: Entry = {}
    if scenario.measure == "cpu":
        for key in ("start", "total"):
            label = f"{title}, launcher CPU per rank ({key}), milliseconds"
            found[key] = _table(label, "ms_per_rank", f"{key}_ms_per_rank", runs, samples)
        return samples, found
    found["call"] = _table(f"{title}, milliseconds", "ms", "ms", runs, samples)
    if scenario.measure == "end":
        label = f"{title}, end of function to return, milliseconds"
        found["end_to_return"] = _table(label, "ms", "end_ms", runs, samples)
    return samples, found


def promises(of: dict[str, Samples]) -> list[Entry]:
    """Return the promises of the project with what was measured."""

    def compare(name: str, above: str, below: str, key: str = "ms") -> float | None:
        samples = of.get(name, {})
        top, bottom = find(samples, above), find(samples, below)
        return ratio(figure(samples, top, key), figure(samples, bottom, key))

    def cpu(name: str) -> float | None:
        samples = of.get(name, {})
        found = figure(samples, find(samples, FLAMESPAWN), "start_ms_per_rank")
        return None if found is None else round(found.median, 4)

    noop_floor = compare("noop-32", FLAMESPAWN, FLOOR)
    noop_peer = compare("noop-32", MULTIPROCESSING, FLAMESPAWN)
    noop_torch = compare("noop-8", TORCH, FLAMESPAWN)
    torch = compare("torch-8", TORCH, FLAMESPAWN)
    end = compare("torch-1", FLAMESPAWN, TORCH, "end_ms")
    found = [
        promise("32 no-op ranks, ratio to the floor", noop_floor, at_most=1.25),
        promise("32 no-op ranks, times faster than multiprocessing", noop_peer, at_least=3),
        promise("8 no-op ranks, times faster than torch", noop_torch, at_least=80),
        promise("8 ranks with torch, times faster than torch", torch, at_least=1.4),
        promise("end of function to return, 1 rank with torch, ratio to torch", end, at_most=0.2),
        promise("launcher CPU to start 32 ranks, ms per rank", cpu("cpu-32"), at_most=0.4),
        promise("launcher CPU to start 128 ranks, ms per rank", cpu("cpu-128"), at_most=0.4),
    ]
    print_promises(found)
    return found


def main() -> None:
    """Run from the command line."""
    arguments = parse("Compare ways to start ranks.", list(SCENARIOS), _NOT_QUICK)

    def measure(directory: Path) -> Entry:
        samples: dict[str, Samples] = {}
        scenarios: Entry = {}
        for name in arguments.only:
            samples[name], scenarios[name] = _measure(name, arguments, directory)
        return {"scenarios": scenarios, "promises": promises(samples)}

    run_benchmark("start", arguments, measure)


if __name__ == "__main__":
    main()
