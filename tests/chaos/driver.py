"""One job as seen from outside: the driver does to it what the plan says, and watches."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import remains
from chaos.notes import Note, Notes
from chaos.plan import Blow, Job

# What a machine that does other things as well may take longer.
MARGIN = 40.0

_INTERRUPT_AGAIN = 0.5
_STACKS_TIME = 0.5
_CHUNK = 1 << 16


@dataclass
class Run:
    """
    What has been seen of a job.

    Attributes:
        notes: what ranks and launcher have written.
        result: what the launcher has found, None if it was killed.
        status: the launcher's exit code, negative for a signal.
        hung: whether it had to be ended.
        at_outcome: pids of what ranks had started that were there when `join` had its outcome.
        settled: seconds from the end of the launcher until all was gone that was to go.
        left: name by pid of what was left in the end, and was not to be.
        stayed: the same of what may have stayed.
        stopped: pids of what was still there after a second, and stopped.
        files: temporary files that are left.
        log: what launcher and ranks have printed.
    """

    notes: Notes = field(default_factory=Notes)
    result: dict[str, Any] | None = None
    status: int = 0
    hung: bool = False
    at_outcome: set[int] = field(default_factory=set)
    settled: float = 0.0
    left: dict[int, str] = field(default_factory=dict)
    stayed: dict[int, str] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    log: str = ""


class Driver:
    """
    Sees to one job.

    Args:
        job: the job.
        launcher: pid of the launcher, a child of this process.
        folder: where the job's files are.
        fifo: the read end of the notes' pipe.
    """

    def __init__(self, job: Job, launcher: int, folder: Path, fifo: int) -> None:
        self._job = job
        self._launcher = launcher
        self._folder = folder
        self._fifo = fifo
        self._poller = select.poll()
        self._poller.register(fifo, select.POLLIN)
        self._handle = os.pidfd_open(launcher)
        self._poller.register(self._handle, select.POLLIN)
        # The ranks that run, by handle.
        self._ranks: dict[int, int] = {}
        self._blows = list(job.blows)
        if job.is_plain:
            # Nobody else can end it.
            self._blows.append(Blow(at=job.patience, what="end"))
        self.run = Run()

    def watch(self) -> Run:
        """See to the job until its launcher has ended."""
        deadline = time.monotonic() + self._job.longest + MARGIN
        try:
            while not self._step(deadline):
                if time.monotonic() >= deadline:
                    self._give_up()
                    deadline = time.monotonic() + MARGIN
            self._read_notes()
            _, status = os.waitpid(self._launcher, 0)
            self.run.status = os.waitstatus_to_exitcode(status)
        finally:
            for handle in (self._handle, *self._ranks):
                os.close(handle)
        return self.run

    def _give_up(self) -> None:
        """Let the launcher show its stacks, and end it."""
        self.run.hung = True
        os.kill(self._launcher, signal.SIGUSR1)
        time.sleep(_STACKS_TIME)  # faulthandler does not tell when it has finished
        os.kill(self._launcher, signal.SIGKILL)

    def _step(self, deadline: float) -> bool:
        """Wait for one event, or until the next blow is due; return whether the launcher ended."""
        wait = min(deadline, self._next_blow_at) - time.monotonic()
        over = False
        for fd, _ in self._poller.poll(max(wait, 0) * 1000):
            if fd == self._fifo:
                self._read_notes()
            elif fd == self._handle:
                over = True
            elif fd in self._ranks:
                self._poller.unregister(fd)
                self.run.notes.saw_end(self._ranks.pop(fd))
                os.close(fd)
        while not over and time.monotonic() >= self._next_blow_at:
            self._strike(self._blows.pop(0))
        return over

    @property
    def _next_blow_at(self) -> float:
        ready = self.run.notes.ready_at
        if ready is None or not self._blows:
            return float("inf")
        return self._blows[0].at + ready / 1e9

    def read_late_notes(self) -> None:
        """Read what ranks have written that live on for a moment after their launcher."""
        self._new_notes()

    def _read_notes(self) -> None:
        for note in self._new_notes():
            self._react(note)

    def _new_notes(self) -> list[Note]:
        try:
            data = os.read(self._fifo, _CHUNK)
        except BlockingIOError:
            return []
        return list(self.run.notes.add(data))

    def _react(self, note: Note) -> None:
        if note.word == "start":
            try:
                handle = os.pidfd_open(note.pid)
            except ProcessLookupError:
                self.run.notes.saw_end(int(note.who))
                return
            self._ranks[handle] = int(note.who)
            self._poller.register(handle, select.POLLIN)
        elif note.is_outcome:
            births = self.run.notes.births
            self.run.at_outcome = {pid for pid, at in births.items() if remains.runs(pid, at)}

    def _strike(self, blow: Blow) -> None:
        notes = self.run.notes
        if blow.what == "kill_rank":
            handles = {rank: handle for handle, rank in self._ranks.items()}
            if blow.rank in handles:
                notes.struck(blow.rank, blow.signum)
                try:
                    signal.pidfd_send_signal(handles[blow.rank], blow.signum)
                except ProcessLookupError:
                    return
        elif blow.what == "kill_launcher":
            notes.struck("launcher", signal.SIGKILL)
            os.kill(self._launcher, signal.SIGKILL)
        elif blow.what == "ctrl_c":
            notes.struck("all", signal.SIGINT)
            os.killpg(self._launcher, signal.SIGINT)
        else:
            notes.struck("launcher", signal.SIGINT)
            os.kill(self._launcher, signal.SIGINT)
            if blow.what == "end":
                # It may have come while the launcher was not to be interrupted.
                self._blows.append(Blow(at=blow.at + _INTERRUPT_AGAIN, what="end"))
