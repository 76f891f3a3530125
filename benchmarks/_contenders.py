"""What join.py compares: the kinds of children, and the ways to wait for each kind."""

from __future__ import annotations

import dataclasses

from _harness import Contender, Kind

PROGRAM = Kind("program", "a small C program", most_others=2048, others_per_victim=16)
RANK = Kind("rank", "a forked Python process", most_others=512, others_per_victim=8)

FLOOR_ONE = Contender(PROGRAM, "floor-one", "C waitid(P_PID), told which", floor_mode="pid")
FLOOR_ANY = Contender(PROGRAM, "floor-any", "C waitid(P_ALL)", floor_mode="all")
FLAMESPAWN = Contender(PROGRAM, "flamespawn", "flamespawn ProcessContext.join()")
MULTIPROCESSING = Contender(PROGRAM, "multiprocessing", "multiprocessing connection.wait(), join()")
TORCH = Contender(PROGRAM, "torch", "torch ProcessContext.join()")
PSUTIL = Contender(PROGRAM, "psutil", "psutil Process.wait(60), told which", timeout=60.0)
SUBPROCESS = Contender(PROGRAM, "subprocess", "subprocess Popen.wait(60), told which", timeout=60.0)


def _rank_floor(key: str, package: str) -> Contender:
    label = f"C waitid(P_PID), told which; imports {package}"
    return Contender(RANK, key, label, floor=key, packages=(package,))


# A forked process has the memory of its launcher: what the launcher has imported decides how long
# the kernel takes the process apart. So each contender has a floor with the same imports.
RANK_CONTENDERS = (
    _rank_floor("floor-one", "flamespawn"),
    dataclasses.replace(FLAMESPAWN, kind=RANK),
    dataclasses.replace(MULTIPROCESSING, kind=RANK, packages=("flamespawn",)),
    _rank_floor("floor-torch", "torch"),
    dataclasses.replace(TORCH, kind=RANK, floor="floor-torch"),
    _rank_floor("floor-psutil", "psutil"),
    dataclasses.replace(PSUTIL, kind=RANK, floor="floor-psutil"),
)

LATENCY = {
    PROGRAM: (FLOOR_ONE, FLOOR_ANY, FLAMESPAWN, MULTIPROCESSING, TORCH, PSUTIL, SUBPROCESS),
    RANK: RANK_CONTENDERS,
}
CPU_TIME = (
    FLOOR_ANY,
    dataclasses.replace(FLAMESPAWN, label="flamespawn, as spawn(join=True) waits"),
    dataclasses.replace(FLAMESPAWN, key="flamespawn-loop", label="flamespawn, a loop of join()"),
    MULTIPROCESSING,
    dataclasses.replace(TORCH, label="torch, a loop of join(), as its spawn waits"),
)
IDLE = tuple(
    dataclasses.replace(contender, timeout=timeout, label=f"{label}, {limit}")
    for contender, label in (
        (FLAMESPAWN, "flamespawn join"),
        (MULTIPROCESSING, "multiprocessing connection.wait"),
        (TORCH, "torch join"),
        (PSUTIL, "psutil wait for one process"),
        (SUBPROCESS, "subprocess wait for one process"),
    )
    for timeout, limit in ((None, "no time-out"), (3600.0, "time-out 1 h"))
)
