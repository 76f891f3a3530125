"""What start.py and payload.py share: samples from fresh launchers, tables, command line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import _harness
from _harness import Figure, LauncherError, machine_facts
from _measure import Entry, print_table
from _spawn_calls import FLAMESPAWN, FLOOR, MULTIPROCESSING, TORCH, Measured, Order
from join import positive

_HERE = Path(__file__).resolve().parent
# No launcher takes as long; one that does is stuck.
TIMEOUT_S = 300.0
_FLOOR_PROGRAMS = {
    "_ranks": "pass",
    "_ranks_numpy": "import numpy",
    "_ranks_torch": "import torch",
}
_LABELS = {
    FLOOR: "C posix_spawn(), waitid()",
    FLAMESPAWN: "flamespawn spawn()",
    MULTIPROCESSING: "multiprocessing, spawn",
    TORCH: "torch spawn()",
}


@dataclass(frozen=True)
class Run:
    """An order that is carried out ``samples`` times, each time by a fresh launcher."""

    order: Order
    samples: int
    label: str = ""

    @property
    def name(self) -> str:
        """What the tables call it."""
        contender = _LABELS[self.order.contender]
        if self.order.contender == FLOOR:
            contender = f"{contender}, python -c {_FLOOR_PROGRAMS[self.order.module]!r}"
        return f"{self.label}, {contender}" if self.label else contender

    @property
    def missing(self) -> str | None:
        """The package that it needs and that is not installed."""
        order = self.order
        needed = [order.contender] if order.contender in (FLAMESPAWN, TORCH) else []
        _, _, imported = order.module.removeprefix("_ranks").partition("_")
        needed += [imported] if imported else []
        return next((name for name in needed if importlib.util.find_spec(name) is None), None)

    def command(self, directory: Path) -> list[str]:
        """Return the command line of its launcher."""
        order = self.order
        if order.contender != FLOOR:
            text = json.dumps(dataclasses.asdict(order))
            return [sys.executable, str(_HERE / "_spawn_main.py"), text]
        floor = [str(directory / "spawn_floor"), str(order.ranks)]
        return [*floor, sys.executable, "-c", _FLOOR_PROGRAMS[order.module]]


Samples = dict[Run, list[Measured]]


@contextlib.contextmanager
def compiled_floor() -> Iterator[Path]:
    """Compile the floor into a directory that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="spawn-benchmark-") as name:
        directory = Path(name)
        _harness._compile_program(directory / "spawn_floor")
        yield directory


def _with_bytecode() -> dict[str, str]:
    """Return an environment in which the module of the ranks is compiled once, not by each rank."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


@contextlib.contextmanager
def launcher(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """
    Run a launcher in a session of its own and wait for it at the end.

    An exception ends the whole session: the launcher and its ranks.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=_with_bytecode(),
    )
    with process:
        try:
            yield process
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def finish(process: subprocess.Popen[str], name: str) -> Measured:
    """
    Wait for a launcher and return what it has measured.

    The ranks have its output, too: none of them is left when that ends.
    """
    output, _ = process.communicate(timeout=TIMEOUT_S)
    if process.returncode != 0 or not output:
        msg = f"launcher {name!r} ended with status {process.returncode}"
        raise LauncherError(msg)
    measured: Measured = json.loads(output.splitlines()[-1])
    return measured


def take_sample(run: Run, directory: Path) -> Measured:
    """Carry out an order once."""
    with launcher(run.command(directory)) as process:
        return finish(process, run.name)


def take_samples(runs: Sequence[Run], directory: Path) -> Samples:
    """
    Carry out all orders in turns, in an order that is random in each round.

    The fewer samples of slow contenders are spread evenly over the rounds.
    """
    present = [run for run in runs if run.missing is None]
    shuffle = random.Random(len(runs)).shuffle
    samples: Samples = {run: [] for run in present}
    _warm_up(present, directory)
    rounds = max((run.samples for run in present), default=0)
    for number in range(rounds):
        turn = [
            run
            for run in present
            if number * run.samples // rounds < (number + 1) * run.samples // rounds
        ]
        shuffle(turn)
        for run in turn:
            samples[run].append(take_sample(run, directory))
    return samples


def _warm_up(runs: Sequence[Run], directory: Path) -> None:
    """
    Have everything compiled, and read from disk, that ranks import.

    What torch's ranks import its launchers have imported, too.
    """
    for run in runs:
        order = run.order
        if order.contender == FLOOR or (order.contender != TORCH and order.module == "_ranks"):
            take_sample(
                dataclasses.replace(run, order=dataclasses.replace(order, ranks=1)), directory
            )


def figure(samples: Samples, run: Run | None, key: str) -> Figure | None:
    """Summarise one of the values that were measured; None if it was not."""
    values = [measured[key] for measured in samples.get(run, ())] if run is not None else []
    return Figure.of(values) if values else None


def ratio(above: Figure | None, below: Figure | None) -> float | None:
    """Return the ratio of two medians."""
    return None if above is None or below is None else round(above.median / below.median, 4)


def find(samples: Samples, contender: str, size: int = 0) -> Run | None:
    """Return the run of a contender that was measured, with arguments of that size."""
    wanted = (contender, size)
    return next((run for run in samples if (run.order.contender, run.order.size) == wanted), None)


def entry(
    run: Run, unit: str, measured: Figure | None, ratios: Entry, why: str | None = None
) -> Entry:
    """Return what the JSON output says about one run; if it was left out, maybe why."""
    order = dataclasses.asdict(run.order)
    if run.missing is not None:
        why = f"{run.missing} is not installed"
    values: Entry = {"status": why or "left out"}
    if measured is not None:
        values = {unit: measured.as_json(), **ratios}
    return {"label": run.name, **order, **values}


def promise(
    label: str,
    value: float | None,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Entry:
    """Compare a value with what the project promises."""
    limit = f"<= {at_most:g}" if at_most is not None else f">= {at_least:g}"
    met = None
    if value is not None:
        met = value <= at_most if at_most is not None else value >= (at_least or 0.0)
    verdict = {True: "pass", False: "FAIL", None: "not measured"}[met]
    return {"label": label, "value": value, "limit": limit, "met": met, "verdict": verdict}


def print_promises(promises: Sequence[Entry]) -> None:
    """Print what the project promises beside what was measured."""
    print_table("What flamespawn promises", ["value", "limit", "verdict"], promises)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("flamespawn", "torch", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    spec = importlib.util.find_spec("flamespawn")
    return {**found, "flamespawn_from": str(spec.origin if spec else None)}


def parse(description: str, names: Sequence[str], not_quick: Sequence[str]) -> argparse.Namespace:
    """Read the command line; afterwards ``only`` has the names of what is to be measured."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few samples, in less than 60 s")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"what to measure, of {', '.join(names)} "
        f"(default: everything; if --quick without torch's spawn and {', '.join(not_quick)})",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        metavar="N",
        help="samples of each contender, and the most that slow ones get (default: see the source)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the last line here, too")
    arguments = parser.parse_args()
    arguments.slow = bool(arguments.only) or not arguments.quick
    if arguments.only is None:
        arguments.only = [name for name in names if arguments.slow or name not in not_quick]
    return arguments


def run_benchmark(
    name: str, arguments: argparse.Namespace, measure: Callable[[Path], Entry]
) -> None:
    """Measure, and print what was measured as JSON, with what is needed to judge it."""
    # Leave through the context managers, which stop the launchers and remove the programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    machine = {**machine_facts(), **_versions()}
    print_table("Machine", ["value"], [{"label": k, "value": str(v)} for k, v in machine.items()])
    with compiled_floor() as directory:
        measured = measure(directory)
    result = {
        "benchmark": name,
        "machine": machine,
        "settings": {"quick": arguments.quick, "only": arguments.only, "rounds": arguments.rounds},
        **measured,
        "seconds": round(time.monotonic() - started, 1),
    }
    text = json.dumps(result)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")
    print(f"\n{text}")
