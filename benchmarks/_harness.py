"""What the measurements of join.py share: C programs, launchers, figures, machine facts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

_HERE = Path(__file__).resolve().parent
_COMPILE = ("cc", "-std=c11", "-O2")
# Symbols are bound when the program starts, so that no call pays for its first time.
_LINK = "-Wl,-z,now"


@contextlib.contextmanager
def compiled_programs() -> Iterator[Path]:
    """Compile what is in C into a directory that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="join-benchmark-") as name:
        directory = Path(name)
        _compile_program(directory / "child")
        _compile_program(directory / "waitid_floor")
        _compile(directory / "waitid_stamp.so", "-shared", "-fPIC")
        yield directory


def _compile_program(path: Path) -> None:
    """
    Compile a program; linked statically if there is a static libc.

    A child that shares no libc with thousands of others leaves sooner and more evenly: an exit
    waits for whoever walks the list of all mappings of a shared page.
    """
    try:
        _compile(path, "-static", stderr=subprocess.DEVNULL)
    except subprocess.CalledProcessError:
        _compile(path)


def _compile(path: Path, *options: str, stderr: int | None = None) -> None:
    """Compile the source file of the same name."""
    source = _HERE / f"{path.stem}.c"
    command = [*_COMPILE, "-o", str(path), str(source), _LINK, *options]
    subprocess.run(command, check=True, stderr=stderr)


@dataclass(frozen=True)
class Kind:
    """
    A kind of children.

    Attributes:
        key: its name in ``_children.py`` and in JSON.
        label: what the tables call the children.
        most_others: how many a machine of ordinary size can take for each contender.
        others_per_victim: a batch has one victim for so many others, at least one.
    """

    key: str
    label: str
    most_others: int
    others_per_victim: int


@dataclass(frozen=True)
class Contender:
    """
    One way to wait for one kind of children.

    Attributes:
        kind: of the children.
        key: its name in ``_waiters.py`` and in JSON.
        label: what the tables call it.
        timeout: what its waiting calls are given in seconds.
        floor: key of the contender that it is compared with, one with the same children.
        packages: what its launcher imports besides what it needs, so that forked children are
            the same as those of the contender that it is compared with.
        floor_mode: set for those that are run by the C program.
    """

    kind: Kind
    key: str
    label: str
    timeout: float | None = None
    floor: str = "floor-one"
    packages: tuple[str, ...] = ()
    floor_mode: str | None = None

    def command(self, directory: Path) -> list[str]:
        """Return the command line of its launcher."""
        if self.floor_mode is not None:
            return [str(directory / "waitid_floor"), str(directory / "child"), self.floor_mode]
        timeout = "none" if self.timeout is None else str(self.timeout)
        launcher = [sys.executable, str(_HERE / "_launcher.py"), str(directory)]
        return [*launcher, self.kind.key, self.key, timeout, *self.packages]


class LauncherError(Exception):
    """A launcher ended or answered with something else than was expected."""


class Launcher:
    """
    A launcher process; ``_launcher.py`` describes what can be said to it.

    Leaving the context kills it. Its children then see the end of their input and exit.
    """

    def __init__(self, contender: Contender, directory: Path) -> None:
        self.contender = contender
        self.version: str | None = None  # None: a package that it needs is not installed
        # In a session of its own it doesn't see the Ctrl-C that ends the driver.
        self._process = subprocess.Popen(
            contender.command(directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """The pid of the launcher."""
        return self._process.pid

    def greet(self) -> None:
        """Wait until the launcher is ready and learn its version."""
        greeting, _, version = self.receive().partition(" ")
        if greeting == "hello":
            self.version = version

    def send(self, *words: object) -> None:
        """Send one line."""
        assert self._process.stdin is not None, "the launcher was started with a pipe"
        print(*words, file=self._process.stdin, flush=True)

    def receive(self) -> str:
        """Return one line of the launcher without its end."""
        assert self._process.stdout is not None, "the launcher was started with a pipe"
        line = self._process.stdout.readline()
        if not line:
            msg = f"launcher {self.contender.label!r} ended with status {self._process.wait()}"
            raise LauncherError(msg)
        return line.rstrip("\n")

    def expect(self, answer: str) -> None:
        """Receive one line, which must be ``answer``."""
        line = self.receive()
        if line != answer:
            msg = f"launcher {self.contender.label!r} answered {line!r} instead of {answer!r}"
            raise LauncherError(msg)


@contextlib.contextmanager
def running_launchers(contenders: Sequence[Contender], programs: Path) -> Iterator[list[Launcher]]:
    """
    Start one launcher for each contender, all of them at once, and kill them at the end.

    Each has its own copy of the programs, so that no page is shared between contenders.
    """
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=programs.parent)))
        launchers = []
        for number, contender in enumerate(contenders):
            own = shutil.copytree(programs, directory / str(number))
            launchers.append(stack.enter_context(Launcher(contender, own)))
        for launcher in launchers:
            launcher.greet()
        yield launchers


@dataclass(frozen=True)
class Figure:
    """The distribution of a sample."""

    median: float
    p10: float
    p90: float
    p99: float
    n: int

    @classmethod
    def of(cls, sample: Sequence[float]) -> Figure:
        """Summarise ``sample``; quantiles interpolate linearly between its values."""
        ordered = sorted(sample)
        return cls(
            median=statistics.median(ordered),
            p10=_quantile(ordered, 0.1),
            p90=_quantile(ordered, 0.9),
            p99=_quantile(ordered, 0.99),
            n=len(ordered),
        )

    def as_json(self) -> dict[str, float]:
        """Return the fields, rounded to what the clocks can tell."""
        return {name: round(value, 3) for name, value in dataclasses.asdict(self).items()}


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def voluntary_switches(pid: int) -> int:
    """Return the voluntary context switches of all threads of process ``pid`` so far."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def machine_facts() -> dict[str, object]:
    """Return what a reader needs to know about this machine to judge the figures."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    compiler = subprocess.run(
        ["cc", "--version"], check=True, capture_output=True, text=True
    ).stdout.splitlines()[0]
    return {
        "platform": platform.platform(),
        "cpu": models[0] if models else platform.machine(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "virtual_machine": any("hypervisor" in line.split() for line in cpuinfo),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": compiler,
    }
