"""Starting ranks: arguments, start methods, and starts that fail."""

from __future__ import annotations

import functools
import json
import multiprocessing
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

import conftest
import flamespawn
import jobs
import probes
from flamespawn import _native
from flamespawn._platform import features
from flamespawn._starts import MultiprocessingStart

RunLauncher = Callable[..., "subprocess.Popen[str]"]
START_METHODS = ["spawn", "fork", "forkserver"]


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("kind", [tuple, list])
def test_ranks_run_fn_with_index_and_args(start_method: str, kind: type) -> None:
    """Each rank calls fn(i, *args), with a tuple or a list of arguments."""
    here, there = multiprocessing.Pipe(duplex=False)
    args = kind((there, "a", {"b": 1}))

    assert flamespawn.start_processes(jobs.send_rank, args, 3, start_method=start_method) is None

    received = sorted(here.recv() for _ in range(3))
    assert received == [(rank, "a", {"b": 1}) for rank in range(3)]
    here.close()
    there.close()


def test_spawn_starts_fresh_interpreters() -> None:
    """spawn() runs the ranks and returns None once they are done."""
    here, there = multiprocessing.Pipe(duplex=False)

    assert flamespawn.spawn(jobs.send_rank, (there,), nprocs=2) is None

    assert sorted(here.recv() for _ in range(2)) == [(0,), (1,)]
    here.close()
    there.close()


def test_spawn_without_join_returns_a_running_context() -> None:
    """With join=False the ranks are running, and their pids are in the order of the ranks."""
    context = flamespawn.start_processes(
        jobs.wait_forever, nprocs=3, join=False, start_method=jobs.QUICK
    )

    assert context.pids() == [process.pid for process in context.processes]
    assert conftest.children() == set(context.pids())
    assert list(context.sentinels.values()) == [0, 1, 2]
    assert repr(context) == "<ProcessContext: 3 of 3 ranks running>"
    context.kill()
    with pytest.raises(flamespawn.ProcessExitedException):
        context.join()


@pytest.mark.posix("there is no other start method")
def test_spawn_with_another_start_method_warns_and_spawns() -> None:
    """spawn(start_method=...) is accepted, warned about and not followed, as in torch."""
    with pytest.warns(FutureWarning, match="start_method='spawn'.*'fork'"):
        context = flamespawn.spawn(jobs.nothing, join=False, start_method="fork")

    assert context is not None
    assert type(context.processes[0]).__name__ == "SpawnProcess"
    assert context.join()


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"fn": 5}, TypeError, "fn must be callable, not int"),
    ({"fn": None}, TypeError, "fn must be callable, not NoneType"),
    ({"args": "abc"}, TypeError, "args must be a tuple or a list, not str"),
    ({"args": 5}, TypeError, "args must be a tuple or a list, not int"),
    ({"args": None}, TypeError, "args must be a tuple or a list"),
    ({"args": {1: 2}}, TypeError, "args must be a tuple or a list, not dict"),
    ({"nprocs": 0}, ValueError, "nprocs must be at least 1, not 0"),
    ({"nprocs": -3}, ValueError, "nprocs must be at least 1, not -3"),
    ({"nprocs": 2.0}, TypeError, "nprocs must be a whole number, not float"),
    ({"nprocs": True}, TypeError, "nprocs must be a whole number, not bool"),
    ({"nprocs": "2"}, TypeError, "nprocs must be a whole number, not str"),
    ({"nprocs": None}, TypeError, "nprocs must be a whole number, not NoneType"),
    ({"join": "no"}, TypeError, "join must be True or False, not str"),
    ({"daemon": 0}, TypeError, "daemon must be True or False, not int"),
    ({"start_method": "xyz"}, ValueError, "start_method must be one of .*, not 'xyz'"),
    ({"start_method": None}, TypeError, "start_method must be a string, not NoneType"),
    ({"grace_period": float("nan")}, ValueError, "grace_period must be a number .*, not NaN"),
    ({"grace_period": "1"}, TypeError, "grace_period must be a number of seconds, not str"),
]


@pytest.mark.parametrize("function", [flamespawn.spawn, flamespawn.start_processes])
@pytest.mark.parametrize(
    ("wrong", "error", "message"), WRONG, ids=[str(wrong) for wrong, *_ in WRONG]
)
def test_wrong_arguments_are_named_before_anything_starts(
    function: Any,
    wrong: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An argument of the wrong kind is refused by name, and no process has been made."""
    made: list[object] = []
    monkeypatch.setattr(
        multiprocessing.process.BaseProcess, "start", lambda process: made.append(process)
    )
    arguments = {"fn": jobs.nothing, "nprocs": 2} | wrong

    with pytest.raises(error, match=message):
        function(**arguments)

    assert made == []


def test_integers_of_other_libraries_are_whole_numbers() -> None:
    """A number of processes is anything that is an index, as numpy's integers are."""

    class Two:
        def __index__(self) -> int:
            return 2

    context = flamespawn.start_processes(
        jobs.nothing,
        nprocs=Two(),
        join=False,
        start_method=jobs.QUICK,  # type: ignore[arg-type]
    )

    assert len(context.processes) == 2
    with context:
        pass


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_unpicklable_arguments_start_nothing(start_method: str) -> None:
    """An argument that cannot be pickled raises, and no rank is left."""
    with pytest.raises(TypeError, match="pickle"):
        flamespawn.start_processes(jobs.nothing, (threading.Lock(),), 2, start_method=start_method)

    assert conftest.children() == set()


class FailsAt:
    """An argument that refuses to be sent to the third rank."""

    sent = 0

    def __reduce__(self) -> tuple[Any, ...]:
        FailsAt.sent += 1
        if FailsAt.sent == 3:
            msg = "no third rank"
            raise OSError(msg)
        return (int, ())


@pytest.mark.posix("forkserver")
def test_a_start_that_fails_halfway_leaves_no_rank() -> None:
    """When rank 2 cannot be started, ranks 0 and 1 are gone when the exception arrives."""
    FailsAt.sent = 0

    with pytest.raises(OSError, match="no third rank"):
        flamespawn.start_processes(jobs.wait_forever, (FailsAt(),), 4, start_method="forkserver")

    assert conftest.children() == set()


def test_daemon_ranks_are_daemonic_and_start_no_others() -> None:
    """daemon=True is the processes' daemon flag; starting ranks from one is refused by name."""
    with pytest.raises(flamespawn.ProcessRaisedException, match="a daemonic process cannot start"):
        flamespawn.start_processes(
            jobs.call_in,
            (
                0,
                functools.partial(
                    flamespawn.start_processes, jobs.nothing, start_method=jobs.QUICK
                ),
            ),
            daemon=True,
            start_method=jobs.QUICK,
        )


def test_non_daemon_ranks_may_start_ranks() -> None:
    """Nested jobs work, and the inner failure comes through both levels."""
    inner = functools.partial(
        flamespawn.start_processes,
        jobs.call_in,
        (1, jobs.raise_value_error, "inner"),
        2,
        start_method=jobs.QUICK,
    )

    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        flamespawn.start_processes(jobs.call_in, (0, inner), 2, start_method=jobs.QUICK)

    assert caught.value.error_type == "flamespawn.ProcessRaisedException"
    assert isinstance(caught.value.__cause__, flamespawn.ProcessRaisedException)
    assert caught.value.__cause__.error_index == 1
    assert "ValueError: inner" in str(caught.value)


INTERRUPTED_BY_THE_RANK = """
import os, signal
import conftest, flamespawn, jobs

def interrupt_launcher():
    os.kill(launcher, signal.SIGINT)

if __name__ == "__main__":
    launcher = os.getpid()
    flamespawn.start_processes(jobs.nothing, nprocs=1, start_method="fork")
    os.register_at_fork(after_in_child=interrupt_launcher)
    interrupted = 0
    for _ in range(60):
        try:
            flamespawn.start_processes(jobs.nothing, start_method="fork")
        except KeyboardInterrupt:
            interrupted += 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert conftest.children() == set()
    print(interrupted)
"""


@pytest.mark.posix("fork")
def test_an_interrupt_just_after_a_fork(run_launcher: RunLauncher) -> None:
    """A Ctrl-C between the birth of a rank and the note of its pid leaves no rank behind."""
    # Some come where Python can only print them, such as in a `__del__`.
    assert probes.printed(run_launcher(INTERRUPTED_BY_THE_RANK), silent=False) > 0


DEATHS_DURING_THE_START = """
import contextlib, json, os, sys, time
from multiprocessing import Pipe
import flamespawn

def end(rank, what, release):
    if what[rank] == "raise":
        raise ValueError
    if what[rank] == "die":
        os._exit(rank)
    if what[rank] == "die when told":
        release.recv()
        os._exit(rank)
    time.sleep(600)

def wait_for_the_one_before():
    # This is the fork of the next rank.
    ended = what[len(pids) - 1] in ("raise", "die") if pids else False
    if ended:
        # The start of this rank may have collected it.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pids[-1], os.WEXITED | os.WNOWAIT)

if __name__ == "__main__":
    what = json.loads(sys.argv[1])
    here, there = Pipe()
    pids = []
    started = flamespawn._multiprocessing.context("fork").Process
    class Noted(started):
        def start(self):
            super().start()
            pids.append(self.pid)
    flamespawn._multiprocessing.context("fork").__class__.Process = Noted
    os.register_at_fork(before=wait_for_the_one_before)
    context = flamespawn.start_processes(
        end, (what, there), len(what), join=False, start_method="fork", grace_period=0
    )
    if "die when told" in what:
        here.send("now")
        pid = pids[what.index("die when told")]
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        while not context.join():
            pass
    except flamespawn.ProcessException as error:
        print(error.error_index)
"""


@pytest.mark.parametrize(
    ("what", "first"),
    [
        (["die when told", "die", "hang", "hang"], 1),
        (["hang", "hang", "die", "hang", "raise", "hang"], 2),
        (["hang", "raise", "hang", "hang", "die", "hang"], 1),
        (["die when told", "raise", "hang", "hang"], 1),
    ],
)
@pytest.mark.posix("fork")
def test_failures_during_the_start(what: list[str], first: int, run_launcher: RunLauncher) -> None:
    """Ranks that fail while others are still being forked keep their order."""
    assert probes.printed(run_launcher(DEATHS_DURING_THE_START, json.dumps(what))) == first


@pytest.mark.skipif(not features() & _native.FEATURE_TREE, reason="descendants are not found here")
def test_undoing_a_start_of_ranks_that_have_forked() -> None:
    """A child of a rank that holds its pipes does not keep the rank from being collected."""
    here, there = multiprocessing.Pipe(duplex=False)
    start = MultiprocessingStart(jobs.leave_grandchild, (there,), daemon=False, start_method="fork")
    start._start(2)
    for _ in range(2):
        here.recv()

    start._kill_at_once()

    assert conftest.children() == set()
    here.close()
    there.close()
