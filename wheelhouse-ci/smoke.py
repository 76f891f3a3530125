"""
Run a real job with the installed package: on any system, with nothing but the package.

Ranks get arguments, one of them large, and write what they make of them; one raises, and one ends
in the middle of its function. The launcher has to name both. And when a launcher is killed, its
ranks have to be gone. Every start method of the system has its turn.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import flamespawn

RANKS = 4
LARGE = bytes(range(256)) * 4096
# How long ranks wait to be killed, and how long that may take where all is emulated.
FOREVER = 3600
SECONDS = 120


def write_share(rank: int, folder: Path, data: bytes, step: int) -> None:
    """Write the sum of one of `step` parts of *data*."""
    (folder / str(rank)).write_text(str(sum(data[rank::step])))


def raise_in(rank: int, culprit: int, message: str) -> None:
    if rank == culprit:
        raise ValueError(message)


def leave_in(rank: int, culprit: int, code: int) -> None:
    if rank == culprit:
        os._exit(code)


def say_and_wait(rank: int) -> None:
    # In one piece, whoever else writes.
    os.write(1, b"%d\n" % rank)
    time.sleep(FOREVER)


def check(start_method: str, folder: Path) -> None:
    """Run the three jobs; raise AssertionError where something is not as it should be."""
    start = functools.partial(flamespawn.start_processes, nprocs=RANKS, start_method=start_method)

    start(write_share, (folder, LARGE, RANKS))
    shares = [int((folder / str(rank)).read_text()) for rank in range(RANKS)]
    assert sum(shares) == sum(LARGE), shares

    try:
        start(raise_in, (2, "the message"))
    except flamespawn.ProcessRaisedException as error:
        assert error.error_index == 2, error.error_index
        assert "ValueError: the message" in str(error), str(error)
        assert isinstance(error.__cause__, ValueError), error.__cause__
    else:
        raise AssertionError

    try:
        start(leave_in, (1, 7))
    except flamespawn.ProcessExitedException as error:
        assert (error.error_index, error.exit_code) == (1, 7), error
        assert str(error) == "process 1 terminated with exit code 7", str(error)
    else:
        raise AssertionError


def check_orphans(start_methods: list[str]) -> None:
    """Kill launchers whose ranks would wait for ever."""
    command = (sys.executable, "-W", "error", __file__)
    launchers = [
        subprocess.Popen([*command, method], stdout=subprocess.PIPE) for method in start_methods
    ]
    try:
        for launcher in launchers:
            assert launcher.stdout is not None
            ranks = sorted(int(launcher.stdout.readline()) for _ in range(RANKS))
            assert ranks == list(range(RANKS)), ranks
            launcher.kill()
            # The ranks have inherited the pipe, and it ends when the last of them does.
            launcher.communicate(timeout=SECONDS)
    finally:
        for launcher in launchers:
            launcher.kill()


def main() -> None:
    if len(sys.argv) > 1:
        flamespawn.start_processes(say_and_wait, nprocs=RANKS, start_method=sys.argv[1])
    methods = multiprocessing.get_all_start_methods()
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            check(method, Path(folder))
    check_orphans(methods)
    system = sysconfig.get_platform()
    if sys.platform == "linux":
        name, version = platform.libc_ver()
        # Of musl nothing is known there.
        system += f", {name} {version}" if version else ", musl"
    print(f"smoke: CPython {platform.python_version()}, {system}:", ", ".join(methods))


if __name__ == "__main__":
    main()
