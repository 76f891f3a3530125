"""Functions of ranks that end in different ways and in a certain order."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing import util
from multiprocessing.connection import Connection

import descendants
import jobs


def wait_for_the_end(here: Connection, there: Connection) -> None:
    """Wait until no process has *there* any more."""
    there.close()
    with contextlib.suppress(EOFError):
        here.recv()


def fail_in_order(
    rank: int, here: Connection, there: Connection, gate: Connection, way: str
) -> None:
    """Fail in rank 3, when the gate opens, and, five milliseconds after its end, in rank 0."""
    if rank == 3:
        there.send(os.getpid())
        # Until rank 0 has its handle.
        there.recv()
        gate.send("ready")
        gate.recv()
        fail(way)
    if rank == 0:
        wait_for_end = descendants.system.end_of(here.recv())
        here.send("go on")
        wait_for_end()
        time.sleep(0.005)
        fail(way)
    time.sleep(jobs.FOREVER)


def fail(way: str) -> None:
    if way == "exit":
        os._exit(7)
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    jobs.raise_value_error()


def fail_and_stay(rank: int, seconds: float) -> None:
    """Fail in rank 1, whose process stays for a while."""
    if rank == 1:
        util.Finalize(None, time.sleep, (seconds,), exitpriority=1)
        jobs.raise_value_error()
    time.sleep(jobs.FOREVER)


def return_or_fail(rank: int, here: Connection, there: Connection) -> None:
    """Return in rank 0 and, after its end, fail in rank 1."""
    if rank == 1:
        wait_for_the_end(here, there)
        jobs.raise_value_error()


def take_memory(rank: int, culprit: int) -> None:
    """Take memory without end in one rank, while the others wait."""
    chunks = []
    while rank == culprit:
        chunks.append(b"x" * (16 << 20))
    time.sleep(jobs.FOREVER)
