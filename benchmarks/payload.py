"""
What does it cost to hand arguments to ranks, in time and in memory?

All ranks get the same argument, and the function of a rank takes it and an index. Sizes are
decimal: 1 KB is 1000 bytes, 1 GB is 10**9. There are two kinds of arguments:

``bytes``
    An object of type ``bytes``, of 0 B, 60 KB, 70 KB (below and above what fits into a pipe) or
    1 MB. A rank checks its length.
``array``
    A numpy array of type float32, of 100 MB or 1 GB, in the launcher's private memory. A rank
    reads all of it once (``array.sum()``) and checks the result.

*Call* (``bytes-32``, ``bytes-8``, ``array-100mb``, ``array-1gb``). The time in the launcher from
just before ``spawn`` until it has returned, when all ranks have ended. Each sample is a fresh
launcher that makes one call; before, it has imported its library and the module of the ranks, has
made the argument, and has called ``gc.collect()``. The samples of all contenders, and of all sizes
in ``bytes-32``, are taken in turns, in random order, one at a time. Figures are medians, ratios are
those of medians: ``times_flamespawn`` says how much longer a contender takes than flamespawn with
the same argument, ``ratio_to_empty`` how much longer the same contender takes than with 0 B.
Contenders are flamespawn; multiprocessing, as a loop that starts all processes and a loop that
joins all; and, in ``bytes-8`` only, torch. Numbers of ranks: 32 in ``bytes-32``, else 8.

*Memory* (``memory-1gb``). The array of 1 GB goes to 8 ranks. Each reads all of it and then keeps it
and waits. From the start until all ranks wait, another process sums the proportional set size (PSS,
of ``/proc/PID/smaps_rollup``) over the launcher and all its descendants, again and again.

``peak_gb``
    The highest such sum, minus the PSS of the launcher just before the start. Its own array is not
    in it, its copies are. Processes are looked at one after the other: what a rank reads for the
    first time during a sweep can be counted too often. The highest of all samples is shown.
``held_gb``
    The sum when all ranks have read the array and none does anything, minus the same: exact.
``shmem_gb``
    How much ``Shmem`` in ``/proc/meminfo`` has grown at most. A memory file is in it even if no
    process maps it, when no PSS has it; so is what other programs do meanwhile.

After that each rank writes to three places of its array, and when all have done so, looks at those
of the others; the launcher looks at its array in the end. If the writing of one shows elsewhere,
the benchmark fails.

Scenarios with arrays are skipped, with a line that says so, if there is not enough free memory for
multiprocessing, which makes a copy for each rank. Not measured: other types; results that ranks
hand back; anything but Linux.

The last line of the output is all figures as JSON. What is not installed is listed as such. Needs a
C compiler (``cc``) and the package ``tabulate``.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _measure import Entry, print_table
from _pss import Taken, measure_memory, meminfo
from _spawn_calls import FLAMESPAWN, MULTIPROCESSING, TORCH, Order
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

KB, MB, GB = 10**3, 10**6, 10**9
_PEERS = (FLAMESPAWN, MULTIPROCESSING)
_LABELS = {0: "0 B", 60 * KB: "60 KB", 70 * KB: "70 KB", MB: "1 MB", 100 * MB: "100 MB", GB: "1 GB"}
_SAME_COST = (60 * KB, 70 * KB, MB)


@dataclass(frozen=True)
class Scenario:
    """
    Arguments of one kind for one number of ranks.

    Attributes:
        title: what the tables call it.
        kind: see ``_spawn_calls.Order``.
        sizes: in bytes.
        ranks: how many.
        samples: of each contender; the same if --quick.
        contenders: that are compared.
        function: of the ranks.
        measure: see ``_spawn_calls.Order``.
    """

    title: str
    kind: str
    sizes: Sequence[int]
    ranks: int
    samples: tuple[int, int]
    contenders: Sequence[str] = _PEERS
    function: str = "read"
    measure: str = "time"

    def runs(self, arguments: argparse.Namespace) -> list[Run]:
        """Return what is to be done, by the command line."""
        full, quick = self.samples
        samples: int = arguments.rounds or (quick if arguments.quick else full)
        module = "_ranks" if self.kind == "bytes" else "_ranks_numpy"
        order = Order(FLAMESPAWN, self.ranks, module, self.function, self.measure, self.kind)
        return [
            Run(
                dataclasses.replace(order, contender=contender, size=size),
                samples=samples,
                label=_LABELS[size],
            )
            for size in self.sizes
            for contender in self.contenders
        ]

    def lacks_memory(self) -> str | None:
        """
        Return why this cannot be measured here, if so.

        multiprocessing needs an array for each rank and, at times, five in the launcher and the
        rank that it starts.
        """
        needed = max(self.sizes) * (self.ranks + 6)
        available = meminfo("MemAvailable")
        if self.kind == "bytes" or needed <= available:
            return None
        return f"skipped: needs {needed / GB:.1f} GB of memory, {available / GB:.1f} GB are free"


_BYTES = (0, *_SAME_COST)
_TORCH = (*_PEERS, TORCH)
SCENARIOS = {
    "bytes-32": Scenario("bytes to 32 ranks", "bytes", _BYTES, 32, (24, 3), _PEERS, "take"),
    "bytes-8": Scenario("bytes to 8 ranks", "bytes", (MB,), 8, (3, 1), _TORCH, "take"),
    "array-100mb": Scenario("numpy float32 to 8 ranks", "array", (100 * MB,), 8, (5, 1)),
    "array-1gb": Scenario("numpy float32 to 8 ranks", "array", (GB,), 8, (2, 1)),
    "memory-1gb": Scenario(
        "numpy float32 to 8 ranks", "array", (GB,), 8, (1, 1), function="hold", measure="memory"
    ),
}
_NOT_QUICK = ("bytes-8", "array-1gb", "memory-1gb")


def _measure_calls(name: str, runs: Sequence[Run], samples: Samples, why: str | None) -> Entry:
    """Print the times of one scenario."""
    entries = []
    for run in runs:
        order = run.order
        measured = figure(samples, run, "ms")
        flamespawn = figure(samples, find(samples, FLAMESPAWN, order.size), "ms")
        ratios: Entry = {"times_flamespawn": ratio(measured, flamespawn)}
        if 0 in SCENARIOS[name].sizes:
            empty = figure(samples, find(samples, order.contender, 0), "ms")
            ratios["ratio_to_empty"] = ratio(measured, empty)
        entries.append(entry(run, "ms", measured, ratios, why))
    columns = ["ms.median", "ms.p10", "ms.p90", "ms.n", "times_flamespawn"]
    if 0 in SCENARIOS[name].sizes:
        columns.append("ratio_to_empty")
    print_table(f"{name}: {SCENARIOS[name].title}, milliseconds", columns, entries)
    return {"call": entries}


def _measure_memory(
    name: str, runs: Sequence[Run], directory: Path, why: str | None
) -> tuple[Entry, float | None]:
    """Measure and print the memory; return the entries and flamespawn's peak."""
    taken: dict[Run, list[Taken]] = {run: [] for run in runs}
    for number in range(max(run.samples for run in runs)):
        for run in runs:
            if not why and not run.missing and number < run.samples:
                taken[run].append(measure_memory(run, directory))
    entries: list[Entry] = []
    peaks: dict[str, float] = {}
    for run in runs:
        item: Entry = {"label": run.name, **dataclasses.asdict(run.order)}
        if all_taken := taken[run]:
            highest = max(all_taken, key=lambda one: one.peak)
            peaks[run.order.contender] = highest.peak / GB
            for key in ("peak", "held", "shmem"):
                item[f"{key}_gb"] = max(getattr(one, key) for one in all_taken) / GB
            item |= {"n": len(all_taken), "writes_are_private": True}
            item |= {"sweeps": highest.sweeps, "longest_sweep_ms": highest.longest_sweep_ms}
        else:
            item["status"] = why or f"{run.missing} is not installed"
        entries.append(item)
    values = ["peak_gb", "held_gb", "shmem_gb", "n", "sweeps", "longest_sweep_ms"]
    title = f"{name}: {SCENARIOS[name].title}, memory that they take beyond the launcher's, GB"
    print_table(title, [*values, "writes_are_private"], entries)
    return {"memory": entries}, peaks.get(FLAMESPAWN)


def promises(of: dict[str, Samples], peak: float | None) -> list[Entry]:
    """Return the promises of the project with what was measured."""
    small = of.get("bytes-32", {})
    figures = [figure(small, find(small, FLAMESPAWN, size), "ms") for size in _SAME_COST]
    medians = [item.median for item in figures if item is not None]
    spread = round(max(medians) / min(medians), 4) if len(medians) == len(_SAME_COST) else None
    big = of.get("array-1gb", {})
    peer, ours = find(big, MULTIPROCESSING, GB), find(big, FLAMESPAWN, GB)
    faster = ratio(figure(big, peer, "ms"), figure(big, ours, "ms"))
    found = [
        promise("60 KB, 70 KB, 1 MB to 32 ranks, dearest to cheapest", spread, at_most=1.1),
        promise("1 GB to 8 ranks, times faster than multiprocessing", faster, at_least=8),
        promise("1 GB to 8 ranks, peak extra PSS in GB", peak, at_most=1.3),
    ]
    print_promises(found)
    return found


def main() -> None:
    """Run from the command line."""
    arguments = parse("Compare ways to hand arguments to ranks.", list(SCENARIOS), _NOT_QUICK)

    def measure(directory: Path) -> Entry:
        samples: dict[str, Samples] = {}
        scenarios: Entry = {}
        peak: float | None = None
        for name in arguments.only:
            runs = SCENARIOS[name].runs(arguments)
            if why := SCENARIOS[name].lacks_memory():
                print(f"\n{name} {why}")
            if SCENARIOS[name].measure == "memory":
                scenarios[name], peak = _measure_memory(name, runs, directory, why)
                continue
            samples[name] = {} if why else take_samples(runs, directory)
            scenarios[name] = _measure_calls(name, runs, samples[name], why)
        return {"scenarios": scenarios, "promises": promises(samples, peak)}

    run_benchmark("payload", arguments, measure)


if __name__ == "__main__":
    main()
