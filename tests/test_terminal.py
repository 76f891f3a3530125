"""Jobs in a shell on a real terminal: Ctrl-C, a second Ctrl-C, Ctrl-Z and fg."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import conftest

if conftest.ON_WINDOWS:
    pytest.skip("POSIX only: terminals", allow_module_level=True)

import terminal
from terminal import CTRL_C, CTRL_Z, Shell
from test_launcher import wait_until_asleep

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

Start = Callable[..., tuple[psutil.Process, list[psutil.Process]]]

START_METHODS = ["spawn", "fork", "forkserver"]

JOB = r"""
import os, signal, sys, time
import flamespawn

def wait(rank, mode):
    if mode == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, f"rank {rank} was told\n".encode()))
    # In one piece, whatever the others write.
    os.write(1, f"rank {rank} runs as {os.getpid()}\n".encode())
    if mode == "finite":
        # Until somebody opens the other side.
        open(sys.argv[4]).close()
        return
    while True:
        # In steps: a signal that comes just before a sleep does not end it.
        time.sleep(0.05)

if __name__ == "__main__":
    start_method, mode, grace = sys.argv[1:4]
    print("launcher", flush=True)
    flamespawn.start_processes(
        wait, (mode,), 3, start_method=start_method, grace_period=float(grace)
    )
    print("launcher is done", flush=True)
"""


@pytest.fixture
def user() -> Iterator[Shell]:
    with terminal.shell() as started:
        yield started


@pytest.fixture
def start(user: Shell, tmp_path: Path) -> Start:
    """Start a job of three ranks in the shell's foreground; return its launcher and them."""
    script = tmp_path / "job.py"
    script.write_text(JOB)

    def run(start_method: str, mode: str, grace: float, *args: object) -> Any:
        words = [sys.executable, script, start_method, mode, grace, *args]
        user.type(" ".join(map(str, words)))
        pids = [int(user.expect(r"rank \d runs as (\d+)\r")[1]) for _ in range(3)]
        (launcher,) = psutil.Process(user.process.pid).children()
        wait_until_asleep(launcher.pid)
        return launcher, [psutil.Process(pid) for pid in pids]

    return run


def wait_for_end_of(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=terminal.SECONDS)
    assert alive == []


@pytest.mark.parametrize("start_method", START_METHODS)
def test_ctrl_c(start_method: str, user: Shell, start: Start) -> None:
    """There is one traceback, the launcher's, the prompt is back, and nothing is left."""
    _, ranks = start(start_method, "endless", 600)

    user.press(CTRL_C)
    shown = user.expect_prompt()

    assert shown.count("Traceback (most recent call last)") == 1
    assert shown.count("KeyboardInterrupt") == 1
    assert shown.rstrip().endswith("KeyboardInterrupt")
    assert user.run("echo $?") == "130"
    wait_for_end_of(ranks)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_sigint_to_the_launcher_alone(start_method: str, user: Shell, start: Start) -> None:
    """An interrupt that the ranks do not get, as in a notebook, stops them all the same."""
    launcher, ranks = start(start_method, "endless", 600)

    launcher.send_signal(signal.SIGINT)
    shown = user.expect_prompt()

    assert shown.count("Traceback (most recent call last)") == 1
    assert shown.rstrip().endswith("KeyboardInterrupt")
    wait_for_end_of(ranks)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_ctrl_c_and_ranks_that_take_no_notice(start_method: str, user: Shell, start: Start) -> None:
    """Ranks that ignore all that they are told are gone when the grace period is over."""
    _, ranks = start(start_method, "stubborn", 0.5)

    user.press(CTRL_C)
    shown = user.expect_prompt()

    assert shown.count("was told") == 3
    assert shown.count("Traceback (most recent call last)") == 1
    wait_for_end_of(ranks)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_second_ctrl_c(start_method: str, user: Shell, start: Start) -> None:
    """It kills at once what the first one has not ended yet, and adds no traceback."""
    _, ranks = start(start_method, "stubborn", 600)

    user.press(CTRL_C)
    for _ in range(3):
        user.expect(r"rank \d was told")
    user.press(CTRL_C)
    shown = user.expect_prompt()

    assert shown.count("Traceback (most recent call last)") == 1
    assert shown.rstrip().endswith("KeyboardInterrupt")
    assert user.run("echo $?") == "130"
    wait_for_end_of(ranks)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_ctrl_z_and_fg(start_method: str, user: Shell, start: Start, tmp_path: Path) -> None:
    """The whole job stops, goes on, and ends well: to have been stopped is no failure."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    launcher, ranks = start(start_method, "finite", 0.1, fifo)
    processes = [launcher, *ranks]

    user.press(CTRL_Z)
    assert "Stopped" in user.expect_prompt()
    # The shell waits for the launcher only, and nobody is told of the others.
    deadline = time.monotonic() + terminal.SECONDS
    while any(process.status() != psutil.STATUS_STOPPED for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    user.type("fg")
    user.expect(r"job\.py")
    # Lets all ranks go, whenever they look.
    fd = os.open(fifo, os.O_RDWR)
    shown = user.expect_prompt()
    os.close(fd)

    assert "launcher is done" in shown
    assert user.run("echo $?") == "0"
    wait_for_end_of(processes)
