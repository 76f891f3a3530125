"""Whole launchers, in processes of their own: interrupts, leaks, silence, refused system calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import conftest

RunLauncher = Callable[..., "subprocess.Popen[str]"]

WAIT_FOR_MANY = """
import multiprocessing, sys, time
import flamespawn, jobs

if __name__ == "__main__":
    if sys.argv[2] != "None":
        flamespawn._context.features = lambda: int(sys.argv[2])
    here, there = multiprocessing.Pipe(duplex=False)
    nprocs = int(sys.argv[1])
    context = flamespawn.start_processes(
        jobs.announce_and_wait, (there,), nprocs, join=False, start_method="fork"
    )
    for _ in range(nprocs):
        here.recv()
    print(*context.pids(), flush=True)
    try:
        context.join()
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
        context.kill()
        try:
            context.join()
        except flamespawn.ProcessExitedException as error:
            print(len(error.fates), flush=True)
"""


def wait_until_asleep(pid: int) -> None:
    """Wait until the main thread of a process sleeps in the kernel's wait."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        # The kernel tells nobody that a process has gone to sleep.
        if Path(f"/proc/{pid}/wchan").read_text() in {"ep_poll", "do_epoll_wait"}:
            return
        if Path(f"/proc/{pid}/syscall").read_text().split()[0] in {"232", "281", "441", "22"}:
            return
        time.sleep(0.005)
    pytest.fail("the launcher did not go to sleep")


@pytest.mark.posix("/proc")
def test_ctrl_c_while_joining_1024_ranks(run_launcher: RunLauncher) -> None:
    """SIGINT to a launcher that waits for 1024 ranks raises KeyboardInterrupt at once."""
    launcher = run_launcher(WAIT_FOR_MANY, "1024", "None")
    assert launcher.stdout is not None
    pids = [int(pid) for pid in launcher.stdout.readline().split()]
    wait_until_asleep(launcher.pid)

    sent = time.monotonic()
    os.kill(launcher.pid, signal.SIGINT)
    seen = float(launcher.stdout.readline())

    assert seen - sent < 1
    assert int(launcher.stdout.readline()) == 1024
    out, err = launcher.communicate(timeout=60)
    assert (launcher.returncode, out, err) == (0, "", "")
    assert not any(psutil.pid_exists(pid) for pid in pids)


MANY_SHORT_RANKS = """
import gc, json, os, resource, sys, threading
import flamespawn, jobs

def left_behind():
    gc.collect()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "temporary": sorted(name for name in os.listdir("/tmp") if "spawn" in name),
        "children": sorted(open(f"/proc/self/task/{os.getpid()}/children").read().split()),
    }

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

if __name__ == "__main__":
    batch, rounds = 50, int(sys.argv[1]) // 50
    for number in range(rounds):
        flamespawn.start_processes(jobs.nothing, nprocs=batch, start_method="fork")
        if number == rounds // 4:
            before, memory = left_behind(), resident()
    print(json.dumps([before, left_behind(), resident() - memory]))
"""


@pytest.mark.slow
@pytest.mark.posix("/proc")
def test_ten_thousand_ranks_leave_nothing(run_launcher: RunLauncher) -> None:
    """One launcher that has run 10,000 ranks is as it was: descriptors, children, memory."""
    launcher = run_launcher(MANY_SHORT_RANKS, "10000")

    out, err = launcher.communicate(timeout=conftest.WATCHDOG_SECONDS)

    assert err == ""
    before, after, growth = json.loads(out)
    assert after == before
    assert after["children"] == []
    assert growth < 1 << 20


def voluntary_switches(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


@pytest.mark.parametrize("features", ["None", "0"])
@pytest.mark.posix("/proc")
def test_nothing_wakes_a_waiting_launcher(run_launcher: RunLauncher, features: str) -> None:
    """While ranks run, no thread of the launcher is scheduled once."""
    launcher = run_launcher(WAIT_FOR_MANY, "64", features)
    assert launcher.stdout is not None
    launcher.stdout.readline()
    wait_until_asleep(launcher.pid)

    # The threads of the fall-back may still be on their way to sleep, which nobody tells.
    before = -1
    while before != (before := voluntary_switches(launcher.pid)):
        time.sleep(0.1)
    # What is tested is that nothing happens: there is no event to wait for.
    time.sleep(2)

    assert voluntary_switches(launcher.pid) == before


OUT_OF_DESCRIPTORS = """
import gc, os, resource, sys
import flamespawn, jobs

if __name__ == "__main__":
    flamespawn.start_processes(jobs.nothing, start_method="fork")
    used = len(os.listdir("/proc/self/fd")) - 1
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    messages = set()
    for spare in range(2, 16):
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, limit[1]))
        try:
            context = flamespawn.start_processes(
                jobs.wait_forever, nprocs=8, join=False, start_method=sys.argv[1]
            )
        except OSError as error:
            messages.add(str(error))
        else:
            raise AssertionError
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        left = set(open(f"/proc/self/task/{os.getpid()}/children").read().split())
        assert not left, (spare, left)
        # multiprocessing itself loses one pipe where it gets no second one.
        gc.collect()
        now = len(os.listdir("/proc/self/fd")) - 1
        assert now in (used, used + 2), (spare, now - used)
        used = now
    print(messages)
"""


@pytest.mark.posix("RLIMIT_NOFILE")
def test_a_start_without_enough_descriptors(run_launcher: RunLauncher) -> None:
    """Wherever the descriptors run out, the error says so and no rank is left."""
    launcher = run_launcher(OUT_OF_DESCRIPTORS, "fork")

    out, err = launcher.communicate(timeout=60)

    assert err == ""
    assert "Too many open files" in out


NEVER_JOINED = """
import array, fcntl, termios, time
import flamespawn, jobs

if __name__ == "__main__":
    context = flamespawn.start_processes(
        jobs.call_in, (0, jobs.raise_long, 1 << 20), join=False, start_method="fork"
    )
    count = array.array("i", [0])
    # Nobody tells how full a pipe is.
    while count[0] < 1 << 15:
        fcntl.ioctl(context.error_queues[0].fd, termios.FIONREAD, count)
        time.sleep(0.005)
"""


@pytest.mark.posix("pipes whose size is known")
def test_a_long_report_that_nobody_reads(run_launcher: RunLauncher) -> None:
    """A launcher that exits is not kept by a rank in the middle of its report, and shows it."""
    launcher = run_launcher(NEVER_JOINED)

    _, err = launcher.communicate(timeout=30)

    assert launcher.returncode == 0
    assert err.rstrip().endswith("x" * 100)


IMPORT_ONLY = """
import os, signal, sys, threading
if os.name == "nt":
    from system_windows import descriptors
else:
    from system_posix import descriptors
before = (descriptors(), threading.active_count(),
          [signal.getsignal(number) for number in signal.valid_signals()], dict(os.environ))
import flamespawn
after = (descriptors(), threading.active_count(),
         [signal.getsignal(number) for number in signal.valid_signals()], dict(os.environ))
assert before == after
assert "torch" not in sys.modules
"""


def test_import_has_no_side_effects(run_launcher: RunLauncher) -> None:
    """Importing opens nothing, starts nothing and handles no signal."""
    launcher = run_launcher(IMPORT_ONLY)

    assert launcher.communicate(timeout=30) == ("", "")
    assert launcher.returncode == 0
