"""
A job: the ranks of one start, and all that they start themselves.

Every rank is given a guard, which ends it when the launcher is gone, and a mark, by which what it
has started is found: in the environment variable `FLAMESPAWN_JOB`, and for ranks that were forked
also in the name of a mapping. See csrc/procset.h, "tree" and "guard".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from flamespawn import _native
from flamespawn._deadline import Deadline, after, earlier, has_passed
from flamespawn._member import Member
from flamespawn._native import Fd
from flamespawn._platform import LauncherPipe, anonymous_file, features
from flamespawn._teardown import REAP_TIME

MARK_VARIABLE = "FLAMESPAWN_JOB"


def variable(job: str, rank: int) -> str:
    """Return the value of `FLAMESPAWN_JOB` for a rank: its mark, after those of its ancestors."""
    return ":".join(filter(None, (os.environ.get(MARK_VARIABLE), f"{job}.{rank}")))


def open_board(world_size: int) -> Fd | None:
    """
    Return the file in which ranks and their guards say who is cared for; None where it is no use.

    See csrc/procset.h, "guard".
    """
    if not features() & _native.FEATURE_TREE:
        return None
    board = anonymous_file("board")
    os.truncate(board.fileno(), world_size * _native.BOARD_ENTRY_SIZE)
    return board


def guard_arguments(job: str, known: int, fds: dict[str, int], world_size: int) -> list[Any]:
    """
    Return what `_rank_native.guard` takes after the rank.

    Args:
        job: its name.
        known: the features of the launcher, which a rank does not find out again.
        fds: those of the launcher's pipe and, where there are such, of its handle and the board.
        world_size: the number of ranks.
    """
    names = ("pipe", "launcher", "board")
    return [job, known, *(fds.get(name, -1) for name in names), world_size]


class Job:
    """
    One start of ranks.

    Attributes:
        name: what the marks of its ranks have in common, and no other job of this host.
        left: how many processes that ranks have started could not be ended, and the pid of one.
        problem: why processes could not be looked for, or None.
    """

    def __init__(self) -> None:
        self.name = os.urandom(16).hex()
        self.left = (0, 0)
        self.problem: OSError | None = None
        # Nobody else refers to the pipe where ranks are started by `multiprocessing`.
        self.pipe: LauncherPipe | None = None
        self._tree: _native.Tree | None = None
        self._limit: Deadline = None
        if features() & _native.FEATURE_TREE:
            self._tree = _native.Tree(features(), self.name.encode())

    def close(self) -> None:
        """Let go of everything; the ranks must have ended."""
        # What an interrupt cuts short here is called again, and closes itself when it is dropped.
        tree, self._tree = self._tree, None
        if tree is not None:
            tree.close()
        self.pipe = None

    def look(self, members: Sequence[Member]) -> None:
        """Remember what ranks that run have started, while their parents can still be asked."""
        alive = [member for member in members if not member.ended]
        if self._tree is not None and alive:
            try:
                self._tree.look(
                    [member.pid for member in alive], [member.index for member in alive]
                )
            except OSError as error:
                # The ranks are to be stopped all the same.
                self.problem = error

    def end(self, ranks: list[int], deadline: Deadline = None, jobs: Sequence[int] = ()) -> bool:
        """
        End all that these ranks, which have ended, have started, and wait until it is gone.

        It is given up two seconds after the first call; what is left then is in `left`.

        Args:
            ranks: their numbers.
            deadline: of this call.
            jobs: those of the system that hold these ranks and what they have started, if any do.

        Returns:
            Whether there is nothing more to be done.
        """
        if not jobs and (self._tree is None or not ranks):
            return True
        if self._limit is None:
            self._limit = after(REAP_TIME)
        try:
            until = earlier(deadline, self._limit)
            if self._tree is None:
                self.left = _native.clear_jobs(list(jobs), until)
            else:
                self.left = self._tree.end(ranks, until)
        except OSError as error:
            self.problem = error
            return True
        return self.left[0] == 0 or has_passed(self._limit) or not has_passed(deadline)

    def describe_left(self) -> str | None:
        """Return one sentence on what could not be ended, or None."""
        if self.problem is not None:
            return f"What ranks have started could not be looked for: {self.problem}."
        number, pid = self.left
        if number == 0:
            return None
        what = "A process" if number == 1 else f"{number} processes"
        return f"{what} that ranks have started could not be ended, such as pid {pid}."


class GuardOrder:
    """
    What a rank that `multiprocessing` starts needs for its guard; an argument of its process.

    Args:
        job: the name of the job.
        pipe: of the launcher.
        world_size: the number of ranks.
    """

    def __init__(self, job: str, pipe: LauncherPipe, world_size: int) -> None:
        self._job = job
        self._features = features()
        self._world_size = world_size
        copies = {name: Fd(os.dup, fd) for name, fd in pipe.guard_fds().items()}
        board = open_board(world_size)
        if board is not None:
            copies["board"] = board
        # `multiprocessing` can send connections.
        self._files = {
            name: Connection(copy.detach(), writable=False) for name, copy in copies.items()
        }

    def close(self) -> None:
        """Let go of the launcher's copies, once all ranks have been started."""
        for file in self._files.values():
            file.close()

    def carry_out(self, rank: int) -> None:
        """Start the guard of this process, which is a rank, and mark it."""
        from flamespawn import _rank_native  # noqa: PLC0415 - only ranks need it

        fds = {name: file.fileno() for name, file in self._files.items()}
        order = guard_arguments(self._job, self._features, fds, self._world_size)
        if _rank_native.guard(rank, *order):
            self.close()
        elif "board" in self._files:
            self._files["board"].close()
        if self._features & _native.FEATURE_TREE:
            _rank_native.mark(self._job, rank)
            os.environ[MARK_VARIABLE] = variable(self._job, rank)

    def ended_well(self) -> None:
        """Say that what this process, a rank, has started may stay."""
        from flamespawn import _rank_native  # noqa: PLC0415 - as above

        _rank_native.ended_well()
