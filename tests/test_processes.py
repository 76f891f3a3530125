"""The process objects of ranks of `spawn`: what `multiprocessing` documents holds for them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import conftest
import flamespawn
import jobs
import probes

RunLauncher = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def waiting_ranks(
    nprocs: int, **options: Any
) -> Iterator[tuple[flamespawn.ProcessContext, Callable[[int], None]]]:
    """Start ranks that wait; also return a function that lets one of them go."""
    pipes = [multiprocessing.Pipe() for _ in range(nprocs)]
    theirs = [there for _, there in pipes]
    context = flamespawn.spawn(jobs.wait_for_release, (theirs,), nprocs, join=False, **options)

    def release(rank: int) -> None:
        pipes[rank][0].send("go")

    try:
        yield context, release
    finally:
        context.stop()
        for pair in pipes:
            for end in pair:
                end.close()


def readable(process: Any) -> bool:
    """Return whether the sentinel says that a process has ended."""
    found = multiprocessing.connection.wait([process.sentinel], timeout=0) != []
    # A select of Windows is for sockets only.
    if not conftest.ON_WINDOWS:
        assert (select.select([process.sentinel], [], [], 0)[0] != []) is found
    return found


@pytest.mark.parametrize("daemon", [False, True])
def test_a_process_while_it_runs(mechanism: str, daemon: bool) -> None:
    """It is alive, has no exit code, and is one of multiprocessing's active children."""
    with waiting_ranks(3, daemon=daemon) as (context, _):
        processes = context.processes

        assert set(multiprocessing.active_children()) == set(processes)
        assert {process.pid for process in processes} == conftest.children()
        assert [process.pid for process in processes] == context.pids()
        assert {process.sentinel for process in processes} == set(context.sentinels)
        for process in processes:
            assert process.is_alive()
            assert process.exitcode is None
            assert process.daemon is daemon
            assert process.name == f"SpawnProcess-{process._identity[0]}"
            assert f"pid={process.pid} parent={os.getpid()} started" in repr(process)
            assert not readable(process)
            process.join(timeout=0)
            process.join(timeout=0.001)
            assert process.is_alive()
            with pytest.raises(ValueError, match="still running"):
                process.close()
            with pytest.raises(AssertionError):
                process.start()


def test_a_process_that_has_ended(mechanism: str) -> None:
    """Its sentinel is readable, its exit code known, and the context finds it ended, too."""
    with waiting_ranks(2) as (context, release):
        first, second = context.processes
        release(0)

        ready = multiprocessing.connection.wait([first.sentinel, second.sentinel], probes.SECONDS)
        assert ready == [first.sentinel]
        assert [readable(process) for process in (first, second)] == [True, False]
        first.join(probes.SECONDS)

        assert (first.exitcode, second.exitcode) == (0, None)
        assert (first.is_alive(), second.is_alive()) == (False, True)
        assert multiprocessing.active_children() == [second]
        assert not context.join()
        release(1)
        assert context.join()
        assert multiprocessing.active_children() == []
        for process in context.processes:
            assert (process.exitcode, process.is_alive(), readable(process)) == (0, False, True)
            process.terminate()
            process.kill()
            process.close()
            with pytest.raises(ValueError, match="closed"):
                process.is_alive()
        assert context.join()


@pytest.mark.parametrize("name", ["terminate", "kill"])
def test_a_process_that_is_ended(name: str, mechanism: str) -> None:
    """terminate() and kill() send the signal, which is the exit code and the context's failure."""
    signum = {"terminate": signal.SIGTERM, "kill": jobs.SIGKILL or signal.SIGTERM}[name]
    with waiting_ranks(2) as (context, _):
        getattr(context.processes[1], name)()
        context.processes[1].join(probes.SECONDS)

        assert context.processes[1].exitcode == -signum
        with pytest.raises(
            flamespawn.ProcessExitedException, match="process 1 .* signal"
        ) as caught:
            context.join()
        assert caught.value.signal_name == signum.name
        assert [process.exitcode for process in context.processes] == [-signal.SIGTERM, -signum]


@contextmanager
def polling(processes: Any) -> Iterator[set[int | None]]:
    """Ask processes in another thread how they are, over and over; collect the exit codes."""
    seen: set[int | None] = set()
    over = threading.Event()

    def poll() -> None:
        while not over.is_set():
            seen.update(process.exitcode for process in processes)
            multiprocessing.active_children()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.posix("a maximum of resident memory")
def test_who_polls_takes_nothing_away(mechanism: str) -> None:
    """However the exit codes are polled during join(), they and the resource usage are right."""
    for number in range(12):
        context = flamespawn.spawn(jobs.leave_with_rank, nprocs=3, join=False)
        with (
            polling(context.processes) as seen,
            pytest.raises(flamespawn.ProcessExitedException) as caught,
        ):
            context.join()

        fates = caught.value.fates
        codes = [process.exitcode for process in context.processes]
        assert codes[caught.value.error_index] == caught.value.error_index + 1, number
        assert seen <= {None, *codes}, number
        for fate, code in zip(fates, codes, strict=True):
            assert code in {fate.index + 1, -signal.SIGTERM}
            assert (fate.exit_code if fate.signal_name is None else -signal.SIGTERM) == code
            assert fate.max_rss > 1 << 20, (number, fate)
            assert fate.user_time + fate.system_time > 0, (number, fate)


CHILDREN_IGNORED = """
import signal, sys
import flamespawn, jobs, probes

if __name__ == "__main__":
    if sys.argv[1] == "threads":
        probes.without_handles()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    flamespawn.spawn(jobs.nothing, nprocs=3)
    try:
        flamespawn.spawn(jobs.leave_with_rank, nprocs=2)
    except flamespawn.ProcessExitedException as error:
        print("true" if "its exit status is unknown" in str(error) else error)
"""


@pytest.mark.parametrize("mechanism", ["handles", "threads"])
@pytest.mark.posix("SIGCHLD")
def test_a_launcher_that_ignores_its_children(mechanism: str, run_launcher: RunLauncher) -> None:
    """Without exit codes a rank that has reported completion succeeds, and no other."""
    assert probes.printed(run_launcher(CHILDREN_IGNORED, mechanism)) is True
