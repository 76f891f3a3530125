"""What ranks and launcher have written about what they were about to do, and what was seen."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

_OUTCOMES = {"True", "ProcessRaisedException", "ProcessExitedException"}


@dataclass(frozen=True)
class Note:
    """One line: when by the monotonic clock in ns, by whom, and what."""

    at: int
    pid: int
    who: str
    word: str
    details: tuple[str, ...]

    @property
    def is_outcome(self) -> bool:
        """Whether it is of a call that has told the launcher how the job ended."""
        return self.word == "called" and self.details[1] in _OUTCOMES


class Notes:
    """
    All notes of a job.

    Attributes:
        lines: as they came, and what the driver has done and seen.
        ranks: of each rank when it first noted each word.
        acts: of each rank when it did what.
        pids: of each rank its process id.
        children: pid of what a rank has started: rank and kind.
        births: when each of these was noted.
        blows: what the driver has sent to a rank, to the launcher or to all: when, and what.
        ends: when the driver saw that a rank had ended.
        stops: when the launcher was told to stop its ranks, and by what.
        helpers: pids of the processes that multiprocessing keeps for the launcher.
        ready_at: when the launcher was ready.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ranks: dict[int, dict[str, int]] = defaultdict(dict)
        self.acts: dict[int, dict[str, int]] = defaultdict(dict)
        self.pids: dict[int, int] = {}
        self.children: dict[int, tuple[int, str]] = {}
        self.births: dict[int, int] = {}
        self.blows: dict[Any, list[tuple[int, int]]] = defaultdict(list)
        self.ends: dict[int, int] = {}
        self.stops: list[tuple[int, str]] = []
        self.helpers: set[int] = set()
        self.ready_at: int | None = None
        self._rest = b""

    def add(self, data: bytes) -> list[Note]:
        """Take bytes from the pipe; return the notes that they complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._take(line.decode()) for line in lines]

    def _take(self, line: str) -> Note:
        self.lines.append(line)
        at, pid, who, word, *details = line.split(" ")
        note = Note(int(at), int(pid), who, word, tuple(details))
        if word == "child":
            # A subprocess cannot speak for itself.
            child = int(details[1]) if len(details) > 1 else note.pid
            self.children[child] = (int(who), details[0])
            self.births[child] = note.at
        elif word == "ready":
            self.ready_at = note.at
        elif word == "helpers":
            self.helpers.update(map(int, details))
        elif word == "stops":
            self.stops.append((note.at, details[0]))
        elif word == "started":
            self.pids.update(enumerate(map(int, details)))
        elif word == "act":
            self.acts[int(who)][details[0]] = note.at
        elif who.isdigit() and self.pids.setdefault(int(who), note.pid) == note.pid:
            # Not by what the rank has forked.
            self.ranks[int(who)].setdefault(word, note.at)
        return note

    def struck(self, whom: object, signum: int) -> None:
        now = time.monotonic_ns()
        self.lines.append(f"{now} driver sends {int(signum)} to {whom}")
        self.blows[whom].append((now, int(signum)))

    def saw_end(self, rank: int) -> None:
        now = time.monotonic_ns()
        self.lines.append(f"{now} driver saw the end of rank {rank}")
        self.ends.setdefault(rank, now)
