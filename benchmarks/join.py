"""
How much does a launcher pay for waiting, and how late does it learn that a process has ended?

Three things are measured. Each is compared with the same thing done by others in the same run.

*Exit to return.* The time from the moment just before a child calls ``_exit`` to the moment when
the call that waited for it has returned in the launcher, with 1 to 2048 other children alive. The
child stamps ``CLOCK_MONOTONIC`` into shared memory as its last act, so the figure contains what the
kernel needs to take the child apart, to wake the launcher, and to reap the child. The floor blocks
in ``waitid``, in C, for the one child that it knows to be about to exit. ``psutil`` and
``subprocess``, too, are told for which process to wait: they have no call that waits for any. The
others wait for all children at once. The number of others is exact at the end of a batch of victims
and up to a sixteenth (C programs) or an eighth (ranks) higher at its start.

There are two kinds of children. One is a small C program (``child.c``), the strictest case: the
kernel takes it apart in no time. Where a contender takes multiprocessing processes, they are real
ones whose process runs that program. The other is a rank as launchers really have it: a Python
process that multiprocessing has forked and that does the same. It has the memory of its launcher,
so the kernel's share grows with what the launcher has imported. For each contender with ranks there
is therefore a floor that has the same imports and forks the same ranks from Python. Its time stamp
is taken in C right after ``waitid``; that stamp does not contain the way back to Python.

*CPU time.* User and system time of the launcher while it joins 1024 processes that end one after
the other, in the way in which each library's own ``spawn`` waits for all; for flamespawn also by a
loop of ``join`` calls.

*Idle wake-ups.* How often the launcher goes to sleep again (its voluntary context switches, of all
threads) while 64 children run and nothing happens. Falling asleep for the first time and the end
are not counted.

Every contender runs in a launcher process of its own with its own children. The rounds of the
contenders are interleaved in random order, so that whatever else happens on the machine hits all
of them alike; the idle launchers all wait at the same time. CPU time and idle wake-ups are measured
with the C program only.

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

from _contenders import CPU_TIME, FLAMESPAWN, IDLE, LATENCY, PROGRAM, RANK
from _harness import compiled_programs, machine_facts, running_launchers
from _measure import Entry, measure_cpu_time, measure_idle, measure_latency, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _harness import Kind


@dataclass(frozen=True)
class Settings:
    """How much is measured; ``others`` is by kind of children."""

    others: dict[str, Sequence[int]]
    rounds: int
    drains: int
    drain_step_ns: int
    idle_s: float

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Settings:
        """Choose by the command line."""
        quick: bool = arguments.quick
        given: list[int] | None = arguments.others
        defaults = {
            PROGRAM: [1, 2048] if quick else [1, 64, 512, 2048],
            RANK: [1, 64] if quick else [1, 64, 512],
        }
        return cls(
            others={
                kind.key: [number for number in given or default if number <= kind.most_others]
                for kind, default in defaults.items()
            },
            rounds=arguments.rounds or (48 if quick else 256),
            drains=1 if quick else 5,
            drain_step_ns=1_000_000 if quick else 2_000_000,
            idle_s=3.0 if quick else 10.0,
        )


def highest(entries: Sequence[Entry], key: str) -> float | None:
    """Return flamespawn's highest value of ``key``, or None if there is none."""
    values = [
        value
        for item in entries
        if item["contender"] == FLAMESPAWN.key and isinstance(value := item.get(key), float | int)
    ]
    return max(values, default=None)


def target(name: str, limit: float, value: float | None, strict: float | None = None) -> Entry:
    """Compare a value with what the project promises; ``strict`` is shown beside it."""
    met = None if value is None else value <= limit
    return {"label": name, "limit": limit, "value": value, "met": met, "with_c_program": strict}


def targets(latency: Sequence[Entry], cpu_time: list[Entry], idle: list[Entry]) -> list[Entry]:
    """
    Return the promises of the project with what was measured.

    With 1 other child the promise is about ranks; the figure with the C program is shown beside it.
    """

    def ratio(kind: Kind, others: int) -> float | None:
        with_others = [item for item in latency if item.get("others") == others]
        chosen = [item for item in with_others if item["kind"] == kind.key]
        return highest(chosen, "ratio_to_floor")

    found = [
        target("exit to return, 1 other rank", 1.3, ratio(RANK, 1), ratio(PROGRAM, 1)),
        target("exit to return, 2048 other C programs", 1.5, ratio(PROGRAM, 2048)),
        target("CPU time", 0.1, highest(cpu_time, "ratio_to_torch")),
        target("idle wake-ups", 0, highest(idle, "voluntary_switches")),
    ]
    print_table("What flamespawn promises", ["value", "limit", "met", "with_c_program"], found)
    return found


def run(settings: Settings) -> Entry:
    """Measure everything and return what the JSON output contains."""
    started = time.monotonic()
    machine = machine_facts()
    print_table("Machine", ["value"], [{"label": k, "value": str(v)} for k, v in machine.items()])
    versions = {}
    latency: list[Entry] = []
    with compiled_programs() as programs:
        for kind, contenders in LATENCY.items():
            with running_launchers(contenders, programs) as launchers:
                versions.update({item.contender.key: item.version for item in launchers})
                for others in settings.others[kind.key]:
                    latency += measure_latency(launchers, others, settings.rounds)
        with running_launchers(CPU_TIME, programs) as launchers:
            cpu_time = measure_cpu_time(launchers, settings.drain_step_ns, settings.drains)
        with running_launchers(IDLE, programs) as launchers:
            idle = measure_idle(launchers, settings.idle_s)
    return {
        "benchmark": "join",
        "machine": machine,
        "versions": versions,
        "settings": dataclasses.asdict(settings),
        "exit_to_return": latency,
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
    parser.add_argument("--quick", action="store_true", help="fewer rounds, in less than 60 s")
    parser.add_argument(
        "--others",
        type=positive,
        nargs="+",
        metavar="N",
        help="numbers of other children, at most 2048 C programs and 512 ranks "
        "(default: 1 64 512 2048 C programs and 1 64 512 ranks; if --quick 1 2048 and 1 64)",
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
