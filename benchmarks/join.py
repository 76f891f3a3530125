"""
How much does a launcher pay for waiting, and how late does it learn that a process has ended?

Three things are measured. Each is compared with the same thing done by others in the same run.

*Exit to return.* The time from the moment just before a child calls ``_exit`` to the moment when
the call that waited for it has returned in the launcher, with 1 to 2048 other children alive. The
child stamps ``CLOCK_MONOTONIC`` into shared memory as its last act, so the figure contains what the
kernel needs to take the child apart, to wake the launcher, and to reap the child. The floor is a C
program that blocks in ``waitid`` for the one child that it knows to be about to exit. ``psutil``
and ``subprocess``, too, are told for which process to wait: they have no call that waits for any.
The others wait for all children at once. The number of others is exact at the end of a batch of
victims and up to a sixteenth higher at its start.

*CPU time.* User and system time of the launcher while it joins 1024 processes that end one after
the other.

*Idle wake-ups.* How often the launcher goes to sleep again (its voluntary context switches, of all
threads) while 64 children run and nothing happens. Falling asleep for the first time and the end
are not counted.

Every contender runs in a launcher process of its own with its own children. The rounds of the
contenders are interleaved in random order, so that whatever else happens on the machine hits all
of them alike; the idle launchers all wait at the same time. All children are one small C program
(``child.c``). Where a contender takes multiprocessing processes, they are real ones whose process
runs that program.

Not measured: starting processes; how long a Python interpreter takes to exit; failures and their
teardown; anything but Linux. Machines differ in what it costs to wake a sleeping CPU, and that is
most of the floor: compare ratios between machines, not microseconds.

The last line of the output is all figures as JSON. A contender that is not installed is listed as
such. Needs a C compiler (``cc``) and the package ``tabulate``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from _harness import compiled_programs, machine_facts, running_launchers
from _measure import (
    CPU_TIME,
    FLAMESPAWN,
    IDLE,
    LATENCY,
    Entry,
    measure_cpu_time,
    measure_idle,
    measure_latency,
    print_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    others: Sequence[int]
    rounds: int
    drains: int
    drain_step_ns: int
    idle_s: float

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Settings:
        """Choose by the command line."""
        quick: bool = arguments.quick
        return cls(
            others=arguments.others or ([1, 2048] if quick else [1, 64, 512, 2048]),
            rounds=arguments.rounds or (48 if quick else 256),
            drains=1 if quick else 5,
            drain_step_ns=1_000_000 if quick else 2_000_000,
            idle_s=3.0 if quick else 10.0,
        )


def target(name: str, limit: float, entries: Sequence[Entry], key: str) -> Entry:
    """Compare flamespawn's highest value of ``key`` with what the project promises."""
    values = [
        value
        for item in entries
        if item["contender"] == FLAMESPAWN.key and isinstance(value := item.get(key), float | int)
    ]
    value = max(values, default=None)
    met = None if value is None else value <= limit
    return {"label": name, "limit": limit, "value": value, "met": met}


def targets(
    latency: dict[int, list[Entry]], cpu_time: list[Entry], idle: list[Entry]
) -> list[Entry]:
    """Return the promises of the project with what was measured."""
    limits = {1: 1.3, 2048: 1.5}
    found = [
        target(f"exit to return, others: {others}", limit, latency[others], "ratio_to_floor")
        for others, limit in limits.items()
        if others in latency
    ]
    found.append(target("CPU time", 0.1, cpu_time, "ratio_to_torch"))
    found.append(target("idle wake-ups", 0, idle, "voluntary_switches"))
    print_table("What flamespawn promises", ["value", "limit", "met"], found)
    return found


def run(settings: Settings) -> Entry:
    """Measure everything and return what the JSON output contains."""
    started = time.monotonic()
    machine = machine_facts()
    print_table("Machine", ["value"], [{"label": k, "value": str(v)} for k, v in machine.items()])
    with compiled_programs() as programs:
        with running_launchers(LATENCY, programs) as launchers:
            versions = {launcher.contender.key: launcher.version for launcher in launchers}
            latency = {
                others: measure_latency(launchers, others, settings.rounds)
                for others in settings.others
            }
            joiners = [launcher for launcher in launchers if launcher.contender in CPU_TIME]
            cpu_time = measure_cpu_time(joiners, settings.drain_step_ns, settings.drains)
        with running_launchers(IDLE, programs) as launchers:
            idle = measure_idle(launchers, settings.idle_s)
    return {
        "benchmark": "join",
        "machine": machine,
        "versions": versions,
        "settings": dataclasses.asdict(settings),
        "exit_to_return": [item for entries in latency.values() for item in entries],
        "cpu_time": cpu_time,
        "idle": idle,
        "targets": targets(latency, cpu_time, idle),
        "seconds": round(time.monotonic() - started, 1),
    }


def positive(text: str) -> int:
    """Convert a command-line argument to an integer of at least 1."""
    number = int(text)
    if number < 1:
        msg = f"{number} is less than 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Compare ways to wait for processes.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, in less than 40 s")
    parser.add_argument(
        "--others",
        type=positive,
        nargs="+",
        metavar="N",
        help="numbers of other children (default: 1 64 512 2048, or 1 2048 if --quick)",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        metavar="N",
        help="exits of each contender with each number of others (default: 256, or 48 if --quick)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the last line here, too")
    arguments = parser.parse_args()
    # Leave through the context managers, which stop the launchers and remove the programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    text = json.dumps(run(Settings.from_arguments(arguments)))
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
