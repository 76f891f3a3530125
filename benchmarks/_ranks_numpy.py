"""
What the ranks of start.py and payload.py run if they need numpy.

They import nothing that numpy has not imported anyway: what they cost is compared with that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Named pipes of `hold`: the ranks write to the first, and wait for the others.
READY, WRITE, CHECK = "ready", "write", "check"


def noop(_rank: int) -> None:
    """Do nothing."""


def read(rank: int, array: NDArray[np.float32], size: int) -> None:
    """Read the whole array, which is all ones."""
    mean = float(array.sum(dtype=np.float32)) / len(array)
    if array.nbytes != size or abs(mean - 1) > 1e-3:
        msg = f"rank {rank} got {array.nbytes} bytes with a mean of {mean}"
        raise ValueError(msg)


def hold(rank: int, array: NDArray[np.float32], size: int, ranks: int, directory: str) -> None:
    """
    Read the whole array, wait, write to it, wait, and check that nobody else's writing shows.

    After each step but the last the rank says so, and waits until all ranks are told to go on.
    """
    read(rank, array, size)
    ready = os.open(os.path.join(directory, READY), os.O_WRONLY)
    _meet(ready, os.path.join(directory, WRITE))
    for places in places_of(ranks, len(array)):
        array[places[rank]] = rank + 2
    _meet(ready, os.path.join(directory, CHECK))
    for places in places_of(ranks, len(array)):
        expected = [rank + 2 if other == rank else 1 for other in range(ranks)]
        if array[places].tolist() != expected:
            msg = f"rank {rank} sees {array[places].tolist()} instead of {expected}"
            raise ValueError(msg)


def places_of(ranks: int, length: int) -> list[list[int]]:
    """Return indices that the ranks write to, one per rank: begin, middle and end of an array."""
    return [[start + rank for rank in range(ranks)] for start in (0, length // 2, length - ranks)]


def _meet(ready: int, gate: str) -> None:
    """Say that this rank has got here, and wait at the gate; the launcher's end opens it, too."""
    descriptor = os.open(gate, os.O_RDONLY)
    os.write(ready, b"x")
    if not os.read(descriptor, 1):
        msg = "the launcher has gone"
        raise RuntimeError(msg)
    os.close(descriptor)
