"""What ranks have started is ended with them, and nothing else is."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest

import descendants
import flamespawn
import jobs
from flamespawn._job import Job
from probes import SECONDS

START_METHODS = ["spawn", "fork", "forkserver"]
# Those that can still be known when their rank is gone.
MARKED = [
    descendants.start_program,
    *(
        pytest.param(kind, marks=pytest.mark.posix("fork"))
        for kind in (
            descendants.fork,
            descendants.daemonize,
            descendants.daemonize_and_become_a_program,
        )
    ),
]
RunLauncher = Callable[..., "subprocess.Popen[str]"]


def start_and(rank: int, pipe: Connection, kind: Callable, ending: Callable, *args: object) -> None:
    kind(pipe)
    ending(*args)


def pids_of(here: Connection, number: int) -> list[int]:
    pids = []
    for _ in range(number):
        assert here.poll(SECONDS)
        pids.append(here.recv())
    return pids


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("kind", MARKED)
def test_descendants_of_a_failed_rank(kind: Callable, start_method: str) -> None:
    """Whatever a rank that raises has started is gone when join raises."""
    here, there = multiprocessing.Pipe(duplex=False)
    pids: list[int] = []
    with descendants.killed_at_end(pids), here, there:
        with pytest.raises(flamespawn.ProcessRaisedException) as caught:
            flamespawn.start_processes(
                start_and, (there, kind, jobs.raise_value_error), start_method=start_method
            )
        pids += pids_of(here, 1)

        assert descendants.has_ended(pids[0], 0)
        assert caught.value.error_type == "ValueError"


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("kind", MARKED)
def test_descendants_of_a_rank_that_died(kind: Callable, start_method: str) -> None:
    """They are found by their marks when the rank that started them is gone already."""
    here, there = multiprocessing.Pipe(duplex=False)
    pids: list[int] = []
    with descendants.killed_at_end(pids), here, there:
        with pytest.raises(flamespawn.ProcessExitedException):
            flamespawn.start_processes(
                start_and, (there, kind, os._exit, 3), start_method=start_method
            )
        pids += pids_of(here, 1)

        assert descendants.has_ended(pids[0], 0)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_descendants_of_a_stopped_rank(start_method: str) -> None:
    """What a rank has started that is stopped goes with it, also where it had no environment."""
    here, there = multiprocessing.Pipe(duplex=False)
    pids: list[int] = []
    with descendants.killed_at_end(pids), here, there:
        kind = descendants.start_without_environment
        context = flamespawn.start_processes(
            start_and,
            (there, kind, time.sleep, jobs.FOREVER),
            join=False,
            start_method=start_method,
        )
        pids += pids_of(here, 1)
        context.stop()

        assert descendants.has_ended(pids[0], 0)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_descendants_of_a_rank_that_has_completed(start_method: str) -> None:
    """They are left alone, also when another rank fails later."""
    here, there = multiprocessing.Pipe(duplex=False)
    word, sayer = multiprocessing.Pipe(duplex=False)
    pids: list[int] = []
    with descendants.killed_at_end(pids), here, there, word, sayer:
        context = flamespawn.start_processes(
            leave_or_fail, (there, word), 2, join=False, start_method=start_method
        )
        try:
            pids += pids_of(here, 1)
            while not context._members[0].ended:
                context.join()
            sayer.send("fail")
            with pytest.raises(flamespawn.ProcessRaisedException):
                while not context.join():
                    pass

            assert not descendants.has_ended(pids[0], 0)
        finally:
            context.stop()


def leave_or_fail(rank: int, there: Connection, word: Connection) -> None:
    if rank == 0:
        descendants.leave(there)
    else:
        assert word.recv() == "fail"
        jobs.raise_value_error()


def test_bystanders() -> None:
    """Nobody else is signalled: not in the session, the process group, nor under the launcher."""
    bystanders = [subprocess.Popen(descendants.SLEEPER) for _ in range(3)]
    here, there = multiprocessing.Pipe(duplex=False)
    pids: list[int] = []
    try:
        with descendants.killed_at_end(pids), here, there:
            with pytest.raises(flamespawn.ProcessRaisedException):
                flamespawn.start_processes(
                    start_and,
                    (there, descendants.start_program, jobs.raise_value_error),
                    4,
                    start_method=jobs.QUICK,
                )
            # Some ranks may have been stopped before they had started anything.
            while here.poll():
                pids.append(here.recv())

            assert pids
            assert all(descendants.has_ended(pid, 0) for pid in pids)
            assert all(bystander.poll() is None for bystander in bystanders)
    finally:
        for bystander in bystanders:
            bystander.kill()
            bystander.wait()


RECYCLED = """
import os, subprocess, sys
import flamespawn, descendants, jobs

def start_and_die(rank):
    for _ in range(5):
        subprocess.Popen(["/bin/true"]).wait()
    os._exit(1)

if __name__ == "__main__":
    # So few pids that each comes back at once.
    with open("/proc/sys/kernel/pid_max", "w") as file:
        file.write("400")
    bystanders = [subprocess.Popen(descendants.SLEEPER) for _ in range(20)]
    for _ in range(int(sys.argv[1])):
        try:
            flamespawn.start_processes(start_and_die, (), 3, start_method="fork")
        except flamespawn.ProcessExitedException:
            pass
    print([bystander.poll() for bystander in bystanders] == [None] * 20, flush=True)
    for bystander in bystanders:
        bystander.kill()
        bystander.wait()
"""


@pytest.mark.slow
@pytest.mark.posix("namespaces")
def test_recycled_pids(run_launcher: RunLauncher) -> None:
    """Where pids come back at once, strangers that have got them are not signalled."""
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if os.geteuid() != 0 or subprocess.run([*prefix, "true"], check=False).returncode != 0:
        pytest.skip("this needs a PID namespace of its own")
    launcher = run_launcher(RECYCLED, 20, prefix=prefix)
    out, err = launcher.communicate(timeout=2 * SECONDS)

    assert (launcher.returncode, out) == (0, "True\n"), err


NESTED_ENVIRONMENT = """
import os, sys
import flamespawn

def show(rank):
    print(os.environ["FLAMESPAWN_JOB"].count(":"), flush=True)

def nest(rank):
    show(rank)
    flamespawn.start_processes(show, (), 1, start_method=sys.argv[1])

if __name__ == "__main__":
    flamespawn.start_processes(nest, (), 1, start_method=sys.argv[1])
    print("FLAMESPAWN_JOB" in os.environ)
"""


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.posix("marks in the environment")
def test_marks_of_nested_ranks(run_launcher: RunLauncher, start_method: str) -> None:
    """A rank of a rank carries the marks of both; the launcher carries none."""
    launcher = run_launcher(NESTED_ENVIRONMENT, start_method)
    out, err = launcher.communicate(timeout=SECONDS)

    assert out.split() == ["0", "1", "False"], err


@pytest.mark.posix("/proc")
def test_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc all goes on as before; what ranks have started is left."""
    from flamespawn import _job, _native

    features = _job.features() & ~_native.FEATURE_TREE
    monkeypatch.setattr(_job, "features", lambda: features)
    here, there = multiprocessing.Pipe(duplex=False)
    pids: list[int] = []
    with descendants.killed_at_end(pids), here, there:
        with pytest.raises(flamespawn.ProcessRaisedException):
            flamespawn.start_processes(
                start_and,
                (there, descendants.start_program, jobs.raise_value_error),
                start_method="fork",
            )
        pids += pids_of(here, 1)

        assert not descendants.has_ended(pids[0], 0)


class InterruptedTree:
    """A tree whose close is cut short after the last step of it."""

    def close(self) -> None:
        raise KeyboardInterrupt

    def end(self, *_: object) -> None:
        raise AssertionError("the tree is closed")


def test_close_that_is_interrupted() -> None:
    """A job that was being closed can still be told to end what its ranks have started."""
    job = Job()
    job.close()
    job._tree = InterruptedTree()
    with pytest.raises(KeyboardInterrupt):
        job.close()

    assert job.end([0])
    job.close()


def test_has_ended() -> None:
    """The helper of these tests tells a running process from one that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)

    assert not descendants.has_ended(process.pid, 0)
    process.communicate(b"\n")
    assert descendants.has_ended(process.pid, SECONDS)
