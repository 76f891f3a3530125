"""
The start method "spawn" of `multiprocessing`, with processes that the C launcher starts.

Imported by every process that is started from a process object of this module: it must stay small.
"""

from __future__ import annotations

from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from flamespawn import _multiprocessing


class SpawnProcess(BaseProcess):
    """
    A `multiprocessing.Process` that a `get_context()` context starts.

    It differs from the standard library's in two ways: it starts in less time, and it ends without
    taking the interpreter apart, once its exit handlers have run; see `FLAMESPAWN_FULL_EXIT`.
    """

    _start_method = "spawn"

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802 - its name in multiprocessing
        from flamespawn import _fresh, _launch  # noqa: PLC0415 - only who starts processes needs it

        _fresh.refuse_to_start()
        return _launch.start_process(process_obj)

    @staticmethod
    def _after_fork() -> None:
        """Nothing was forked: what the main module has registered for the end is to be kept."""


class SpawnContext(BaseContext):
    """What `get_context` returns."""

    _name = "spawn"
    Process: Any = SpawnProcess


_context = SpawnContext()


def get_context() -> BaseContext:
    """
    Return a context of `multiprocessing` whose processes are started by this package.

    It is for everything that takes a context: `concurrent.futures.ProcessPoolExecutor`,
    `multiprocessing.pool.Pool`, managers, `torch.utils.data.DataLoader`. Its start method is, and
    calls itself, "spawn". A frozen program has the standard library's.
    """
    if _multiprocessing.is_frozen():
        return _multiprocessing.context("spawn")
    return _context


def install() -> None:
    """
    Let `multiprocessing` itself start processes by this package, here and in all processes of ours.

    From then on the start method "spawn", which may then also be called "flamespawn", is the one of
    `get_context`. The default start method does not change: see `multiprocessing.set_start_method`.
    It cannot be undone. A frozen program keeps the standard library's.
    """
    if not _multiprocessing.is_frozen():
        _multiprocessing.install(_context)
