"""The three measurements of join.py: each runs, prints its table, and returns its JSON entries."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from tabulate import tabulate

from _contenders import TORCH
from _harness import Contender, Figure, Launcher, voluntary_switches

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU_PROCESSES = 1024
IDLE_PROCESSES = 64

Entry = dict[str, object]


def _entry(launcher: Launcher, values: Entry | None) -> Entry:
    """Return what the JSON output says about one contender; no values: it is not installed."""
    contender = launcher.contender
    name: Entry = {
        "kind": contender.kind.key,
        "contender": contender.key,
        "label": contender.label,
    }
    return {**name, **({"status": "not installed"} if values is None else values)}


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:#.4g}" if value < 1e3 else f"{value:.0f}"
    return "" if value is None else str(value)


def print_table(title: str, columns: Sequence[str], entries: Sequence[Entry]) -> None:
    """Print the given columns of the entries; ``a.b`` is field ``b`` of dictionary ``a``."""
    rows = []
    for item in entries:
        cells = [_cell(item["label"])]
        for column in columns:
            value: object = item
            for key in column.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            cells.append(_cell(value))
        if "status" in item:
            cells[1] = _cell(item["status"])
        rows.append(cells)
    align = ["left", *("right" for _ in columns)]
    names = [column.rpartition(".")[2].replace("_", " ") for column in columns]
    print(f"\n{title}\n")
    print(tabulate(rows, headers=["", *names], disable_numparse=True, colalign=align), flush=True)


def _delay_ns(others: int) -> int:
    """
    Return how long a released child stays, so that its launcher is surely asleep by then.

    The slowest contender builds a new selector over all children each time: one or two microseconds
    for each. That a process has fallen asleep in the right call is no event one could wait for.
    """
    return 3_000_000 + others * 4_000


def _sample_latency(
    launchers: Sequence[Launcher], others: int, victims: int, rounds: int
) -> dict[Launcher, list[float]]:
    """Return the exit-to-return times of each launcher in microseconds."""
    shuffle = random.Random(others).shuffle
    samples: dict[Launcher, list[float]] = {launcher: [] for launcher in launchers}
    for first in range(0, rounds, victims):
        batch = min(victims, rounds - first)
        for launcher in launchers:
            launcher.send("latency", others, batch, _delay_ns(others))
        for launcher in launchers:
            launcher.expect("started")
        for _ in range(batch):
            order = list(launchers)
            shuffle(order)
            for launcher in order:
                launcher.send("round")
                samples[launcher].append(int(launcher.receive()) / 1e3)
        for launcher in launchers:
            launcher.send("finish")
        for launcher in launchers:
            launcher.expect("done")
    return samples


def measure_latency(launchers: Sequence[Launcher], others: int, rounds: int) -> list[Entry]:
    """Measure and print the exit-to-return time with ``others`` other children of one kind."""
    kind = launchers[0].contender.kind
    present = [launcher for launcher in launchers if launcher.version]
    victims = max(1, others // kind.others_per_victim)
    samples = _sample_latency(present, others, victims, rounds)
    figures = {launcher.contender.key: Figure.of(sample) for launcher, sample in samples.items()}
    entries = []
    for launcher in launchers:
        contender = launcher.contender
        values: Entry | None = None
        if figure := figures.get(contender.key):
            ratio = round(figure.median / figures[contender.floor].median, 3)
            values = {"others": others, "us": figure.as_json(), "ratio_to_floor": ratio}
        entries.append(_entry(launcher, values))
    print_table(
        f"Exit to return with {others} other children ({kind.label}), microseconds",
        ["us.median", "us.p10", "us.p90", "us.p99", "us.n", "ratio_to_floor"],
        entries,
    )
    return entries


def measure_cpu_time(launchers: Sequence[Launcher], step_ns: int, drains: int) -> list[Entry]:
    """Measure and print the CPU time for joining processes, one of which ends every ``step_ns``."""
    samples: dict[Contender, list[tuple[float, float]]] = {}
    for _ in range(drains):
        for launcher in launchers:
            if launcher.version:
                launcher.send("drain", CPU_PROCESSES, step_ns, step_ns)
                launcher.expect("started")
                user_us, system_us = map(int, launcher.receive().split())
                pair = (user_us / 1e3, system_us / 1e3)
                samples.setdefault(launcher.contender, []).append(pair)
    entries = []
    of_torch = [pairs for contender, pairs in samples.items() if contender.key == TORCH.key]
    torch = Figure.of([sum(pair) for pair in of_torch[0]]).median if of_torch else None
    for launcher in launchers:
        values: Entry | None = None
        if pairs := samples.get(launcher.contender):
            total = Figure.of([sum(pair) for pair in pairs])
            values = {
                "processes": CPU_PROCESSES,
                "ms": total.as_json(),
                "user_ms": Figure.of([user for user, _ in pairs]).as_json(),
                "system_ms": Figure.of([system for _, system in pairs]).as_json(),
                "ratio_to_torch": round(total.median / torch, 4) if torch else None,
            }
        entries.append(_entry(launcher, values))
    print_table(
        f"CPU time of the launcher to join {CPU_PROCESSES} processes that end every "
        f"{step_ns / 1e6:g} ms, milliseconds",
        ["ms.median", "ms.p10", "ms.p90", "ms.p99", "ms.n", "ratio_to_torch"],
        entries,
    )
    return entries


def measure_idle(launchers: Sequence[Launcher], seconds: float) -> list[Entry]:
    """Measure and print how often each launcher wakes up while all of them wait."""
    present = [launcher for launcher in launchers if launcher.version]
    settle_s = 0.5
    for launcher in present:
        launcher.send("drain", IDLE_PROCESSES, round((seconds + 2 * settle_s) * 1e9), 0)
    for launcher in present:
        launcher.expect("started")
    # The two sleeps are the time over which is counted; there is no event to wait for.
    time.sleep(settle_s)
    before = {launcher: voluntary_switches(launcher.pid) for launcher in present}
    time.sleep(seconds)
    after = {launcher: voluntary_switches(launcher.pid) for launcher in present}
    for launcher in present:
        launcher.receive()
    entries = []
    for launcher in launchers:
        values: Entry | None = None
        if launcher in after:
            values = {
                "timeout_s": launcher.contender.timeout,
                "seconds": seconds,
                "voluntary_switches": after[launcher] - before[launcher],
            }
        entries.append(_entry(launcher, values))
    print_table(
        f"Voluntary context switches in {seconds:g} s of waiting for {IDLE_PROCESSES} processes",
        ["voluntary_switches"],
        entries,
    )
    return entries
