"""Fates: who failed first, how every rank ended, and who has ended it."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

import conftest
import fate_jobs
import flamespawn
import jobs
from flamespawn import Fate, _memory

START_METHODS = ["fork", "spawn", "forkserver"]


# ------------------------------------------------------------------------------ who failed first


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("looks", ["always", "late", "early and late"])
@pytest.mark.parametrize(
    "way", ["raise", "exit", pytest.param("kill", marks=pytest.mark.posix("SIGKILL"))]
)
def test_the_first_failure_of_two(way: str, looks: str, start_method: str) -> None:
    """Of two failures the earlier one is named, also when both have happened before the look."""
    if way != "raise" and start_method == "forkserver":
        pytest.skip("the fork server tells of deaths in its own order")
    for _ in range(3):
        error = first_of_two(way, looks, start_method)

        assert error.error_index == 3
        assert conftest.children() == set()


def first_of_two(way: str, looks: str, start_method: str) -> Any:
    """Let rank 3 fail, and rank 0 five milliseconds after its end."""
    pipes = (*Pipe(), *Pipe())
    here, there, gate, key = pipes
    context = flamespawn.start_processes(
        *(fate_jobs.fail_in_order, (here, there, gate, way), 4),
        join=False,
        start_method=start_method,
    )
    assert context is not None
    key.recv()
    if looks == "early and late":
        context.join(0)
    key.send("open")
    if looks != "always":
        # Both have ended, and nobody has looked.
        for rank in (0, 3):
            multiprocessing.connection.wait([context.processes[rank].sentinel])
    with pytest.raises(flamespawn.ProcessException) as caught:
        while not context.join():
            pass
    for connection in pipes:
        connection.close()
    return caught.value


# --------------------------------------------------------------------------------- what is known


def fates_of(*args: Any, nprocs: int = 2, **options: Any) -> tuple[Fate, ...]:
    with pytest.raises(flamespawn.ProcessException) as caught:
        flamespawn.start_processes(*args, nprocs=nprocs, **{"start_method": jobs.QUICK, **options})
    return caught.value.fates


@pytest.mark.parametrize(
    ("function", "args", "state", "ended_by"),
    [
        (jobs.raise_value_error, (), "raised", "itself"),
        (os._exit, (3,), "exited", "itself"),
        (os._exit, (0,), "exited", "itself"),
        *(
            pytest.param(
                *(jobs.die, (getattr(signal, name, 0),), "killed", by),
                marks=pytest.mark.posix("signals of the system"),
            )
            for name, by in [("SIGSEGV", "itself"), ("SIGKILL", "other"), ("SIGHUP", "other")]
        ),
    ],
)
def test_the_state_as_a_word(
    function: Any, args: tuple[Any, ...], state: str, ended_by: str
) -> None:
    """A fate says in a word how the rank ended, and who has ended it."""
    fates = fates_of(jobs.call_in, (1, function, *args))

    assert (fates[1].state, fates[1].ended_by) == (state, ended_by)
    assert (fates[0].state, fates[0].ended_by) == ("killed", "launcher")
    assert not fates[1].out_of_memory


@pytest.mark.parametrize(
    ("fate", "state", "ended_by"),
    [
        (Fate(index=0, pid=1, exit_code=0, done=True), "done", "itself"),
        (Fate(index=0, pid=1, done=True), "done", "itself"),
        (Fate(index=0, pid=1, exit_code=3, done=True), "exited", "itself"),
        (Fate(index=0, pid=1), "unknown", None),
        (Fate(index=0, pid=1, ended=False), "abandoned", None),
        (Fate(index=0, pid=1, error="E", signal_name="SIGKILL"), "raised", "itself"),
        (Fate(index=0, pid=1, error="E", exit_code=1, stopped=True), "raised", "launcher"),
    ],
)
def test_states_that_are_rare(fate: Fate, state: str, ended_by: str | None) -> None:
    """The words fit every fate."""
    assert (fate.state, fate.ended_by) == (state, ended_by)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_times(start_method: str) -> None:
    """Times count from the start; a rank that goes on after its failure ends later."""
    before = time.perf_counter()
    fates = fates_of(fate_jobs.fail_and_stay, (0.3,), start_method=start_method)
    most = time.perf_counter() - before

    failed_after, run_time = fates[1].failed_after, fates[1].run_time
    assert failed_after is not None
    assert run_time is not None
    assert 0 < failed_after < failed_after + 0.3 <= run_time <= most
    assert fates[0].run_time is not None
    assert fates[0].run_time <= most
    assert fates[0].failed_after is not None
    assert fates[0].failed_after >= failed_after


def test_a_success_has_not_failed() -> None:
    """A rank that is done has a run time, and no time of failure."""
    here, there = Pipe(duplex=False)
    context = flamespawn.start_processes(
        fate_jobs.return_or_fail, (here, there), 2, join=False, start_method=jobs.QUICK
    )
    assert context is not None
    there.close()
    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        while not context.join():
            pass
    here.close()
    fates = caught.value.fates

    assert fates[0].state == "done"
    assert fates[0].failed_after is None
    assert fates[0].run_time is not None


# --------------------------------------------------------------------------------- out of memory

V1_MOUNT = "30 20 0:25 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V2_MOUNT = "31 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def make_files(root: Path, files: dict[str, str]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(root)


@pytest.mark.parametrize(
    ("files", "count"),
    [
        (
            {
                "proc/self/cgroup": "0::/user/a b\n",
                "proc/self/mountinfo": V2_MOUNT,
                "sys/fs/cgroup/user/a b/memory.events": "low 0\noom 4\noom_kill 3\n",
                "proc/vmstat": "oom_kill 9\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/box/job\n0::/\n",
                "proc/self/mountinfo": V2_MOUNT + V1_MOUNT,
                "sys/fs/cgroup/memory/job/memory.oom_control": "under_oom 0\noom_kill 2\n",
                "proc/vmstat": "oom_kill 9\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/elsewhere\n0::/\n",
                "proc/self/mountinfo": V2_MOUNT + V1_MOUNT,
                "proc/vmstat": "nr_free_pages 5\noom_kill 9\n",
            },
            9,
        ),
        ({"proc/vmstat": "nr_free_pages 5\n"}, None),
        ({"proc/self/cgroup": "rubbish\n", "proc/vmstat": "oom_kill 9\n"}, None),
        ({}, None),
    ],
    ids=["version 2", "version 1", "not to be seen", "old system", "rubbish", "no system"],
)
@pytest.mark.posix("control groups")
def test_where_the_count_is(tmp_path: Path, files: dict[str, str], count: int | None) -> None:
    """The count is found in the files of both versions, and in those of the whole system."""
    assert _memory.kills(make_files(tmp_path, files)) == count


MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")

LAUNCHER = """
import os, sys
import fate_jobs
import flamespawn

if __name__ == "__main__":
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    try:
        flamespawn.start_processes(fate_jobs.take_memory, (1,), 2, start_method=sys.argv[2])
    except flamespawn.ProcessExitedException as error:
        print(error, error.error_index, [fate.out_of_memory for fate in error.fates])
        print([fate.ended_by for fate in error.fates])
        print(*error.__notes__, sep="\\n")
"""


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A group of processes with 300 MB for all of them."""
    folder = MEMORY_GROUPS / f"flamespawn-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(300 << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no memory group can be made here: {error}")
    with contextlib.suppress(OSError):
        # Where swapping is counted.
        (folder / "memory.memsw.limit_in_bytes").write_text(str(300 << 20))
    yield folder
    deadline = time.monotonic() + 30
    while (folder / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)  # nobody tells when the last process has left
    folder.rmdir()


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.posix("control groups")
def test_a_rank_that_takes_all_memory(
    run_launcher: Any, memory_group: Path, start_method: str
) -> None:
    """A rank that the kernel kills for its memory is told from one that somebody has killed."""
    launcher = run_launcher(LAUNCHER, memory_group / "cgroup.procs", start_method)
    out, err = launcher.communicate(timeout=60)

    assert err == ""
    assert out.startswith("process 1 terminated with signal SIGKILL 1 [False, True]\n")
    assert "['launcher', 'other']" in out
    assert "Rank 1 was likely killed because memory was short." in out
    assert "rank 1: ended by signal SIGKILL, likely because memory was short" in out
