"""
The memory that a launcher and its ranks take while the ranks have their arguments.

The proportional set size (PSS) of a process counts each page that is mapped by n processes as an
nth, so that the sum over all processes is what they take together. Pages of a memory file that no
process maps are in no PSS; they are in ``Shmem`` of ``/proc/meminfo``, with what other programs on
the machine have there.
"""

from __future__ import annotations

import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from _harness import LauncherError
from _spawns import TIMEOUT_S, Run, finish, launcher

# Between two sweeps; a sweep itself takes longer.
_PAUSE_S = 0.005


@dataclass(frozen=True)
class Taken:
    """
    Bytes, all of them more than just before the start.

    Attributes:
        peak: the highest PSS of all processes.
        held: the PSS of all processes when all ranks have read their array and none does anything.
        shmem: the highest ``Shmem`` of the machine.
        sweeps: over how many sweeps the highest was taken.
        longest_sweep_ms: the peak may have in it, twice, what was read in such a time.
    """

    peak: int
    held: int
    shmem: int
    sweeps: int
    longest_sweep_ms: float


def meminfo(name: str) -> int:
    """Return a line of ``/proc/meminfo`` in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _family(launcher_pid: int) -> set[int]:
    """Return the launcher, its descendants, and those in its session that have no parent."""
    parents: dict[int, int] = {}
    found = {launcher_pid}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, fields = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        _state, parent, _group, session, *_ = fields.split()
        pid = int(stat.parent.name)
        parents[pid] = int(parent)
        if int(session) == launcher_pid:
            found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _pss(pid: int) -> int:
    """Return the PSS of a process in bytes; 0 if it has gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line[:4] == "Pss:")


class _Sweeps:
    """Sweeps over all processes of a launcher."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._before = self._sum()
        self._shmem_before = meminfo("Shmem")
        self.peak = self.last = self.shmem = self.count = 0
        self.longest_s = 0.0

    def _sum(self) -> int:
        return sum(_pss(pid) for pid in _family(self._process.pid))

    def take(self) -> None:
        """Take one."""
        started = time.monotonic()
        self.last = self._sum() - self._before
        self.peak = max(self.peak, self.last)
        self.shmem = max(self.shmem, meminfo("Shmem") - self._shmem_before)
        self.longest_s = max(self.longest_s, time.monotonic() - started)
        self.count += 1

    def take_until_answer(self) -> None:
        """Take one after the other until the launcher says something, and then a last one."""
        assert self._process.stdout is not None, "the launcher was started with a pipe"
        deadline = time.monotonic() + TIMEOUT_S
        while not select.select([self._process.stdout], [], [], _PAUSE_S)[0]:
            self.take()
            if time.monotonic() > deadline:
                msg = f"the ranks have not read their arrays in {TIMEOUT_S:g} s"
                raise LauncherError(msg)
        self.take()


def _expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None, "the launcher was started with a pipe"
    line = process.stdout.readline()
    if line.strip() != word:
        msg = f"the launcher said {line!r} instead of {word!r}"
        raise LauncherError(msg)


def _tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None, "the launcher was started with a pipe"
    print(word, file=process.stdin, flush=True)


def measure_memory(run: Run, directory: Path) -> Taken:
    """
    Carry out an order with ``measure="memory"``.

    Fails if a rank, or the launcher, sees what another rank has written to its array.
    """
    with launcher(run.command(directory)) as process:
        _expect(process, "ready")
        sweeps = _Sweeps(process)
        _tell(process, "start")
        sweeps.take_until_answer()
        _expect(process, "held")
        _tell(process, "write")
        finish(process, run.name)
    return Taken(
        peak=sweeps.peak,
        held=sweeps.last,
        shmem=sweeps.shmem,
        sweeps=sweeps.count,
        longest_sweep_ms=round(sweeps.longest_s * 1e3, 1),
    )
