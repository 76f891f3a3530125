"""However a launcher dies, its ranks, and what these have started, are gone within a second."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

import conftest
import descendants
import probes

START_METHODS = ["spawn", "fork", "forkserver"]
# What is promised is one second; a busy machine may need more.
SECONDS = probes.SECONDS // 2
RunLauncher = Callable[..., "subprocess.Popen[str]"]

LAUNCHER = """
import os, signal, sys, tempfile, threading, time
import flamespawn, descendants

# The socket of a fork server stays when its user is killed.
tempfile.tempdir = os.path.dirname(__file__)

class Told:
    # Pids, one on a line; written in one piece.
    def send(self, pid):
        os.write(1, f"{pid}\\n".encode())

def be_rank(rank, way, start_method, depth):
    if depth:
        os.write(1, f"{os.getpid()}\\n".encode())
        start(way, start_method, depth - 1)
    for _ in range(0 if way == "alone" else 4):
        descendants.start_program(Told(), detached=True)
    if way == "ignoring":
        for signum in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    Told().send(os.getpid())
    if way == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif way == "closing":
        os.closerange(3, 256)
    time.sleep(descendants.FOREVER)

def start(way, start_method, depth):
    arguments = (way, start_method, depth)
    context = flamespawn.start_processes(be_rank, arguments, 2, False, start_method=start_method)
    if way in ("thread", "exec"):
        kept.append(context)
    else:
        while not context.join():
            pass

kept = []

if __name__ == "__main__":
    way, start_method, depth = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if way == "thread":
        thread = threading.Thread(target=start, args=(way, start_method, depth))
        thread.start()
        thread.join()
    else:
        start(way, start_method, depth)
    if way == "exec":
        sys.stdin.readline()
        os.execv(sys.executable, descendants.SLEEPER)
    time.sleep(descendants.FOREVER)
"""


def hear(launcher: subprocess.Popen[str], number: int) -> list[int]:
    assert launcher.stdout is not None
    return [int(launcher.stdout.readline()) for _ in range(number)]


def check_end(launcher: subprocess.Popen[str], number: int, end: Callable[[], object]) -> None:
    """Let a launcher end when so many processes have told their pids; wait for all of them."""
    pids: list[int] = []
    with descendants.killed_at_end(pids):
        pids += hear(launcher, number)
        end()
        for pid in pids:
            assert descendants.has_ended(pid, SECONDS), pid


# Two ranks that start four programs each.
EACH = 2 * (1 + 4)


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize(
    "way",
    [
        "plainly",
        pytest.param("ignoring", marks=pytest.mark.posix("signals that are blocked")),
        "closing",
        "thread",
    ],
)
def test_launcher_is_killed(run_launcher: RunLauncher, way: str, start_method: str) -> None:
    """Whatever the ranks do with signals and descriptors, and whoever has started them."""
    launcher = run_launcher(LAUNCHER, way, start_method, 0)
    check_end(launcher, EACH, launcher.kill)


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.posix("SIGSTOP")
def test_stopped_ranks(run_launcher: RunLauncher, start_method: str) -> None:
    """A rank that is stopped is ended like the others."""
    launcher = run_launcher(LAUNCHER, "stopped", start_method, 0)
    pids: list[int] = []
    with descendants.killed_at_end(pids):
        pids += hear(launcher, EACH)
        for pid in pids:
            if len(os.listdir(f"/proc/{pid}/task")) > 1:
                descendants.wait_until_stopped(pid)
        launcher.kill()
        for pid in pids:
            assert descendants.has_ended(pid, SECONDS), pid


@pytest.mark.parametrize("start_method", START_METHODS)
def test_nested_ranks(run_launcher: RunLauncher, start_method: str) -> None:
    """Ranks of ranks of ranks are gone, too, with all that they have started."""
    launcher = run_launcher(LAUNCHER, "plainly", start_method, 2)
    # 2 ranks that have 2 ranks each that have 2 ranks with programs.
    check_end(launcher, 2 + 4 + 4 * EACH, launcher.kill)


LATE_LAUNCHER = """
import multiprocessing.connection, os, signal, sys, tempfile, time
import flamespawn, descendants

tempfile.tempdir = os.path.dirname(__file__)

class Told:
    def __init__(self, who):
        self.who = who
    def send(self, pid):
        # In one piece, which print() does not promise.
        os.write(1, f"{self.who} {pid}\\n".encode())

def be_rank(rank):
    if rank != LAST:
        descendants.start_program(Told(rank), detached=True)
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == LAST:
        Told(rank).send(os.getpid())
        time.sleep(descendants.FOREVER)

LAST = 2

if __name__ == "__main__":
    context = flamespawn.start_processes(be_rank, (), 3, False, start_method=sys.argv[1])
    for process in context.processes[:LAST]:
        multiprocessing.connection.wait([process.sentinel])
    Told("launcher").send(os.getpid())
    time.sleep(descendants.FOREVER)
"""


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.posix("what outlives its launcher")
def test_rank_that_died_before(run_launcher: RunLauncher, start_method: str) -> None:
    """What a failed rank has left goes with a launcher that has not looked; a well one keeps it."""
    launcher = run_launcher(LATE_LAUNCHER, start_method)
    assert launcher.stdout is not None
    told: dict[str, int] = {}
    pids: list[int] = []
    with descendants.killed_at_end(pids):
        # Three of these, and the launcher's word that the first two ranks have ended.
        for line in [launcher.stdout.readline() for _ in range(4)]:
            who, pid = line.split()
            told[who] = int(pid)
            pids.append(int(pid))
        launcher.kill()

        assert descendants.has_ended(told["0"], SECONDS)
        assert descendants.has_ended(told["2"], SECONDS)
        assert not descendants.has_ended(told["1"], 0)


@pytest.mark.posix("nohup")
def test_nohup(run_launcher: RunLauncher) -> None:
    """Under nohup, where SIGHUP is ignored, and as a background job, where SIGINT is."""
    prefix = ("sh", "-c", 'trap "" INT QUIT HUP; exec nohup "$@"', "sh")
    launcher = run_launcher(LAUNCHER, "plainly", "spawn", 0, prefix=prefix)
    check_end(launcher, EACH, launcher.kill)


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
@pytest.mark.posix("seccomp")
def test_no_threads(run_launcher: RunLauncher, start_method: str) -> None:
    """In a sandbox where no thread can be made, ranks are tied to their parents instead."""
    prefix = (sys.executable, conftest.HERE / "seccomp.py", "EPERM", "clone3")
    launcher = run_launcher(LAUNCHER, "alone", start_method, 0, prefix=prefix)
    check_end(launcher, 2, launcher.kill)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGSEGV", "SIGHUP"])
@pytest.mark.posix("signals that end a process")
def test_other_deaths(run_launcher: RunLauncher, name: str) -> None:
    """It makes no difference what the launcher dies of."""
    launcher = run_launcher(LAUNCHER, "plainly", "fork", 0)
    check_end(launcher, EACH, lambda: launcher.send_signal(signal.Signals[name]))


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.posix("exec")
def test_launcher_becomes_another_program(run_launcher: RunLauncher, start_method: str) -> None:
    """Ranks end when nobody is left who could join them, although the process lives on."""
    launcher = run_launcher(LAUNCHER, "exec", start_method, 0)

    def go_on() -> None:
        assert launcher.stdin is not None
        launcher.stdin.write("\n")
        launcher.stdin.flush()

    check_end(launcher, EACH, go_on)
    assert launcher.poll() is None


def in_a_namespace() -> tuple[str, ...]:
    """Return what to put in front of a command to make it the first process of a PID namespace."""
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if os.geteuid() != 0 or subprocess.run([*prefix, "true"], check=False).returncode != 0:
        pytest.skip("this needs a PID namespace of its own")
    return prefix


@pytest.mark.posix("namespaces")
def test_in_a_pid_namespace(run_launcher: RunLauncher) -> None:
    """A launcher in a container behaves no differently."""
    prefix = in_a_namespace()
    source = f"""
import subprocess, sys
launcher = subprocess.Popen([{sys.executable!r}, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
pids = [int(launcher.stdout.readline()) for _ in range({EACH})]
launcher.kill()
launcher.wait()
import descendants
print(all(descendants.has_ended(pid, {SECONDS}) for pid in pids))
"""
    path = run_launcher("").args[-1]
    with open(path, "w") as file:
        file.write(LAUNCHER)
    launcher = run_launcher(source, path, "plainly", "spawn", 0, prefix=prefix)
    out, err = launcher.communicate(timeout=2 * SECONDS)

    assert out == "True\n", err


FIRST_PROCESS = """
import multiprocessing, os
import flamespawn, descendants

def leave_an_orphan(rank):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(7)
        os._exit(0)
    os.wait()

def fail(rank, pipe):
    descendants.start_program(pipe, detached=True)
    raise ValueError

if __name__ == "__main__":
    flamespawn.spawn(leave_an_orphan)
    print(os.getpid(), os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]))
    here, there = multiprocessing.Pipe()
    try:
        flamespawn.spawn(fail, (there,))
    except flamespawn.ProcessRaisedException as error:
        print(error.error_type, descendants.has_ended(here.recv(), 0))
"""


@pytest.mark.posix("namespaces")
def test_first_process(run_launcher: RunLauncher) -> None:
    """A launcher that is the init of a container collects its ranks, and no orphan of others."""
    prefix = in_a_namespace()
    launcher = run_launcher(FIRST_PROCESS, prefix=prefix)
    out, err = launcher.communicate(timeout=2 * SECONDS)

    assert out.splitlines() == ["1 7", "ValueError True"], err


@pytest.mark.posix("guards")
def test_guards_do_nothing_meanwhile(run_launcher: RunLauncher) -> None:
    """A guard sleeps: its rank is not scheduled once while nothing happens."""
    launcher = run_launcher(LAUNCHER, "plainly", "spawn", 0)
    pids: list[int] = []
    with descendants.killed_at_end(pids):
        pids += hear(launcher, EACH)
        guarded = [pid for pid in pids if len(os.listdir(f"/proc/{pid}/task")) > 1]
        assert len(guarded) == 2
        # They may still be on their way to sleep at first.
        assert any(descendants.are_silent(guarded) for _ in range(10))
        launcher.kill()
