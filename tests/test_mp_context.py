"""`get_context` and `install`: what multiprocessing and its users do with processes of ours."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from multiprocessing.managers import BaseManager, SharedMemoryManager
from pathlib import Path
from typing import Any

import psutil
import pytest

import conftest
import flamespawn
import jobs
import mp_jobs
from flamespawn import _launch, _multiprocessing
from probes import SECONDS

RunLauncher = Callable[..., "subprocess.Popen[str]"]

# Under Wine the thread that reads them may wait for ever, also with the standard library alone.
EMPTY_MESSAGES = "empty messages, which executors wake their threads with"


@pytest.fixture(params=["multiprocessing", "flamespawn"])
def either(request: pytest.FixtureRequest) -> Any:
    """Run a test with the standard library's context, and the same with ours."""
    if request.param == "multiprocessing":
        return multiprocessing.get_context("spawn")
    return flamespawn.get_context()


@pytest.fixture(params=["multiprocessing", "flamespawn-handles", "flamespawn-threads"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same, with ours also as if this system had no pidfd."""
    if request.param == "multiprocessing":
        return multiprocessing.get_context("spawn")
    if request.param == "flamespawn-threads":
        monkeypatch.setattr(_launch, "features", lambda: 0)
    return flamespawn.get_context()


@pytest.fixture
def ours() -> Any:
    return flamespawn.get_context()


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    """Both ends of a pipe: ours and the one for a process."""
    here, there = multiprocessing.Pipe()
    with here, there:
        yield here, there


def receive(pipe: Connection) -> Any:
    assert pipe.poll(SECONDS)
    return pipe.recv()


def wait_for_nobody(pipe: Connection) -> None:
    """Wait until no process has the other end of a pipe."""
    with pytest.raises(EOFError):
        receive(pipe)


def run(context: Any, target: Callable[..., object], *args: object) -> int:
    """Run a process to its end and return its exit code."""
    process = context.Process(target=target, args=args)
    process.start()
    process.join(SECONDS)
    code = process.exitcode
    process.close()
    return code


# -------------------------------------------------------------------------------- process objects


def test_a_process_object_through_its_life(either: Any, pipe: Any) -> None:
    """From start to close the object says the same as the standard library's."""

    def state() -> tuple[object, ...]:
        return process.exitcode, process.is_alive(), repr(process).split()[-1]

    here, there = pipe
    process = either.Process(target=mp_jobs.wait_and_exit, args=(there, 5), name="five")
    assert (process.pid, process.ident, *state()) == (None, None, None, False, "initial>")
    process.start()

    assert state() == (None, True, "started>")
    assert conftest.children() == {process.pid} == {process.ident}
    assert process in multiprocessing.active_children()
    assert process.join(0) is process.join(0.01) is None
    assert state() == (None, True, "started>")
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    with pytest.raises(ValueError, match="Cannot close a process while it is still running"):
        process.close()

    here.send("go on")
    process.join()
    assert state() == (5, False, "exitcode=5>")
    assert (process.join(), process.join(0), process.kill(), process.terminate()) == (None,) * 4
    assert state() == (5, False, "exitcode=5>")
    assert process not in multiprocessing.active_children()

    process.close()
    process.close()
    assert repr(process).split()[-1] == "closed>"
    for name in ("is_alive", "join", "kill", "terminate", "start"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(process, name)()
    for name in ("exitcode", "pid", "sentinel"):
        with pytest.raises(ValueError, match="process object is closed"):
            getattr(process, name)


def test_a_process_that_is_not_started(either: Any) -> None:
    """Before the start the same things are refused, with the same errors."""
    process = either.Process(target=mp_jobs.nothing)

    with pytest.raises(ValueError, match="process not started"):
        process.sentinel  # noqa: B018 - a property
    with pytest.raises(AssertionError, match="can only join a started process"):
        process.join()
    for name in ("kill", "terminate"):
        with pytest.raises(AttributeError):
            getattr(process, name)()
    process.close()


# What the system keeps of an exit code that is too large, and what it calls an abort.
ALL_ONES, TOO_LARGE, ABORT = (
    (0xFFFF_FFFF, 256, 3) if conftest.ON_WINDOWS else (255, 0, -signal.SIGABRT)
)

EXITS: list[tuple[Callable[..., object], tuple[object, ...], int, str]] = [
    (mp_jobs.nothing, (), 0, ""),
    (sys.exit, (None,), 0, ""),
    (sys.exit, (3,), 3, ""),
    (sys.exit, (True,), 1, ""),
    (sys.exit, (-1,), ALL_ONES, ""),
    (sys.exit, (256,), TOO_LARGE, ""),
    (sys.exit, (2**70,), ALL_ONES, ""),
    (sys.exit, ("said",), 1, "said\n"),
    (sys.exit, (1.5,), 1, "1.5\n"),
    (os._exit, (7,), 7, ""),
    (os.abort, (), ABORT, ""),
    (mp_jobs.fail, (), 1, "ValueError: no data\n"),
    (mp_jobs.raise_at_exit, (), 0, "ValueError: no data\n"),
    (mp_jobs.nothing, (mp_jobs.Broken(),), 1, "ValueError: no data\n"),
]


@pytest.mark.parametrize(("target", "args", "code", "said"), EXITS)
def test_exit_codes(either: Any, target: Any, args: Any, code: int, said: str, capfd: Any) -> None:
    """However a process ends, exit code and last words are those of the standard library."""
    assert run(either, target, *args) == code

    err = capfd.readouterr().err.replace("\r\n", "\n")
    assert err[-len(said) or sys.maxsize :] == said


@pytest.mark.parametrize(
    ("method", "code"),
    [("terminate", -signal.SIGTERM), ("kill", -(jobs.SIGKILL or signal.SIGTERM))],
)
def test_stopping(either: Any, pipe: Any, method: str, code: int) -> None:
    """A process can be terminated and killed, also twice, and its exit code says by what."""
    here, there = pipe
    process = either.Process(target=mp_jobs.announce_and_sleep, args=(there,))
    process.start()
    receive(here)

    getattr(process, method)()
    getattr(process, method)()
    process.join()
    getattr(process, method)()

    assert (process.exitcode, process.is_alive()) == (code, False)


def test_a_sentinel_is_ready_when_the_process_has_ended(either_way: Any, pipe: Any) -> None:
    """A sentinel is ready for `wait` when its process has ended, and not before."""
    here, there = pipe
    processes = [
        either_way.Process(target=target, args=(there,))
        for target in (mp_jobs.announce_and_wait, mp_jobs.nothing)
    ]
    for process in processes:
        process.start()
    receive(here)

    assert wait([processes[0].sentinel, processes[1].sentinel], SECONDS) == [processes[1].sentinel]
    assert wait([processes[0].sentinel], 0) == []
    here.send("go on")
    assert wait([processes[0].sentinel], SECONDS) == [processes[0].sentinel]
    for process in processes:
        process.join()
        assert process.exitcode == 0


@pytest.mark.posix("fork")
def test_a_process_of_somebody_else(either: Any, pipe: Any) -> None:
    """A forked copy of the launcher may not ask the object, and does not disturb its owner's."""
    here, there = pipe
    process = either.Process(target=mp_jobs.wait_and_exit, args=(there, 5))
    process.start()

    pid = os.fork()
    if pid == 0:
        refused = 0
        for ask in (process.is_alive, process.join):
            try:
                ask()
            except AssertionError:
                refused += 1
        os._exit(refused)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert process.is_alive()
    here.send("go on")
    process.join()
    assert process.exitcode == 5


@pytest.mark.posix("fork")
def test_join_does_not_wait_for_forks(either_way: Any, pipe: Any) -> None:
    """A process has ended when it has, even if a fork of it lives on with its descriptors."""
    here, there = pipe
    process = either_way.Process(target=mp_jobs.leave_fork, args=(there,))
    process.start()
    there.close()
    fork = receive(here)

    joining = threading.Thread(target=process.join)
    joining.start()
    joining.join(SECONDS)
    joined = not joining.is_alive()

    assert psutil.pid_exists(fork)
    here.send("go on")
    wait_for_nobody(here)
    joining.join()
    assert joined
    assert (process.exitcode, process.is_alive()) == (0, False)


@pytest.mark.posix("/proc")
def test_a_subclass_with_run(pipe: Any) -> None:
    """A subclass of our Process runs its `run` in the process, with the attributes it was given."""
    here, there = pipe
    process = mp_jobs.Subclass(there)

    process.start()
    process.join()

    assert receive(here) == ("Subclass", "mine", True, "flamespawn")
    assert process.exitcode == 0


# -------------------------------------------------------------------------- who waits for a process


def test_threads_that_ask_about_the_same_process(ours: Any, mechanism: str) -> None:
    """Of threads that join, poll and look, each sees the end, and each the right exit code."""
    for _ in range(3):
        here, there = multiprocessing.Pipe()
        process = ours.Process(target=mp_jobs.wait_and_exit, args=(there, 3))
        process.start()
        codes = []

        def look(process: Any = process, codes: Any = codes) -> None:
            while process.is_alive():
                pass
            codes.append(process.exitcode)

        def join(process: Any = process, codes: Any = codes) -> None:
            process.join()
            codes.append(process.exitcode)

        def poll(process: Any = process, codes: Any = codes) -> None:
            while process.exitcode is None:
                process.join(0.001)
            codes.append(process.exitcode)

        threads = [threading.Thread(target=ask) for ask in (look, join, poll) * 2]
        for thread in threads:
            thread.start()
        here.send("go on")
        for thread in threads:
            thread.join(SECONDS)
        here.close()
        there.close()

        assert codes == [3] * len(threads)


def test_threads_that_start_processes(ours: Any, mechanism: str) -> None:
    """Of processes that are started at the same time, each has its own arguments and exit code."""
    codes: dict[int, list[int]] = {}
    processes = []

    def start_and_join(code: int) -> None:
        codes[code] = []
        for _ in range(2):
            process = ours.Process(target=sys.exit, args=(code,))
            processes.append(process)
            process.start()
            process.join(SECONDS)
            codes[code].append(process.exitcode)

    threads = [threading.Thread(target=start_and_join, args=(code,)) for code in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)

    assert codes == {code: [code] * 2 for code in range(4)}
    # Not before: the start of a process, in multiprocessing, fails where another thread closes one.
    for process in processes:
        process.close()


@pytest.mark.parametrize("whom", ["it", "anybody"])
@pytest.mark.posix("waitpid")
def test_a_process_that_somebody_else_reaps(ours: Any, mechanism: str, whom: str) -> None:
    """A process whose exit status is gone has ended, with a code that is not taken for success."""
    process = ours.Process(target=mp_jobs.nothing)
    process.start()

    assert os.waitpid(process.pid if whom == "it" else -1, 0) == (process.pid, 0)

    assert not process.is_alive()
    assert process not in multiprocessing.active_children()
    process.join()
    process.kill()
    assert process.exitcode == 255
    process.close()


@pytest.mark.posix("SIGCHLD")
def test_with_sigchld_ignored(ours: Any, mechanism: str) -> None:
    """Where the kernel throws exit statuses away, a process still ends for everybody who asks."""
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        processes = [ours.Process(target=mp_jobs.nothing) for _ in range(2)]
        for process in processes:
            process.start()
        processes[0].join()
        assert wait([processes[1].sentinel], SECONDS)
        processes[1].join(SECONDS)
    finally:
        signal.signal(signal.SIGCHLD, previous)

    assert [process.is_alive() for process in processes] == [False, False]
    assert [process.exitcode for process in processes] == [255, 255]


@pytest.mark.posix("SIGALRM")
def test_a_signal_handler_that_raises_in_join(either_way: Any, pipe: Any) -> None:
    """An exception of a signal handler gets out of join, and the process can be joined again."""

    def interrupt(signum: int, frame: object) -> None:
        signal.signal(signum, signal.SIG_IGN)
        raise LookupError("by the handler")

    here, there = pipe
    process = either_way.Process(target=mp_jobs.signal_parent_when_told, args=(there,))
    process.start()
    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(LookupError, match="by the handler"):
            here.send("now")
            process.join()

        assert process.is_alive()
        here.send("go on")
        process.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert process.exitcode == 0


# -------------------------------------------------------------------------------- what a child sees


def test_what_a_process_sees_of_itself(either: Any, pipe: Any) -> None:
    """Names, parent, key, start method, arguments and standard input are the standard library's."""
    here, there = pipe
    process = either.Process(
        target=mp_jobs.send_call, args=(there, mp_jobs.describe), name="seen", daemon=True
    )
    process.start()
    process.join()

    me = multiprocessing.current_process()
    assert receive(here) == {
        "name": "seen",
        "daemon": True,
        "pid": True,
        "parent": (me.name, os.getpid(), True, None),
        "method": "spawn",
        "argv": sys.argv,
        "input": "",
        "authkey": bytes(me.authkey),
        "threads": 1,
        "children": [],
    }


def test_children_of_children(either: Any, pipe: Any, request: pytest.FixtureRequest) -> None:
    """A context that is an argument works in the process, at any depth, and says who is who."""
    here, there = pipe
    process = either.Process(target=mp_jobs.send_lineage, args=(there, either, 2))
    process.start()
    process.join()

    number = process.name.rpartition("-")[2]
    whose = request.node.callspec.params["either"]
    assert receive(here) == tuple(
        f"SpawnProcess-{number}{suffix} of {whose}" for suffix in ("", ":1", ":1:1")
    )
    assert process.exitcode == 2


def test_daemons_have_no_children(either: Any, pipe: Any) -> None:
    """A daemonic process may not start others, in the same words."""
    here, there = pipe
    process = either.Process(
        target=mp_jobs.send_call, args=(there, mp_jobs.try_to_start, either), daemon=True
    )
    process.start()
    process.join()

    assert receive(here) == "daemonic processes are not allowed to have children"


@pytest.mark.posix("what outlives its launcher")
@pytest.mark.parametrize("method", ["same", "fork", "forkserver"])
def test_a_process_is_told_when_its_parent_ends(ours: Any, pipe: Any, method: str) -> None:
    """parent_process().join() returns at the parent's end, whatever the parent started later."""
    here, there = pipe
    other_here, other_there = ours.Pipe()
    parent = ours.Process(target=mp_jobs.start_two_and_die, args=(there, ours, other_there, method))
    parent.start()
    there.close()
    other_there.close()
    receive(here)
    here.send("start the other one")
    receive(other_here)

    here.send("die")
    parent.join()
    assert receive(here) == (False, parent.pid)

    other_here.send("go on")
    for end in (here, other_here):
        wait_for_nobody(end)
    other_here.close()


def test_what_happens_when_a_process_ends(ours: Any, tmp_path: Path, capfd: Any) -> None:
    """Finalizers, threads and exit handlers run as they do there, and output is written."""
    orders = []
    for context in (multiprocessing.get_context("spawn"), ours):
        path = tmp_path / type(context).__module__
        assert run(context, mp_jobs.write_at_the_end, str(path)) == 0
        assert capfd.readouterr() == ("no newline", "")
        orders.append(path.read_text().split())

    # It is not the same in all versions of Python.
    assert orders[0] == orders[1]
    assert sorted(orders[1]) == ["atexit", "finalizer", "thread"]


def test_everything_that_can_be_shared(either: Any) -> None:
    """Queues, locks and shared memory of a context work with its processes."""
    queue, event, condition = either.Queue(), either.Event(), either.Condition()
    barrier, semaphore = either.Barrier(2), either.Semaphore(0)
    value, array = either.Value("i", 1), either.Array("d", 2)
    # They have to live until the process has them: a process object forgets its arguments.
    shared = (queue, either.Lock(), semaphore, event, condition, barrier, value, array)
    process = either.Process(target=mp_jobs.use_all, args=shared)
    with condition:
        process.start()
        semaphore.release()
        barrier.wait(SECONDS)
        assert condition.wait(SECONDS)

    assert queue.get(timeout=SECONDS) == process.pid
    event.set()
    process.join()
    assert (process.exitcode, value.value, array[:]) == (0, 2, [2.5, 0])
    queue.close()
    queue.join_thread()


# ------------------------------------------------------------------------------- starts that fail


@pytest.mark.parametrize(
    "part", [{"target": lambda: None}, {"target": print, "args": (threading.Lock(),)}]
)
def test_what_cannot_be_pickled(ours: Any, part: dict[str, Any]) -> None:
    """A process that cannot be sent raises, starts nothing, and its object is as before."""
    process = ours.Process(**part)

    with pytest.raises(TypeError, match=r"(target|args\[0\]): cannot pickle"):
        process.start()

    assert (process.pid, process.exitcode, process.is_alive()) == (None, None, False)
    assert conftest.children() == set()
    assert process not in multiprocessing.active_children()


def test_an_error_of_pickling_itself(either: Any) -> None:
    """What an argument raises while it is being pickled arrives as it is."""
    if conftest.ON_WINDOWS and not isinstance(either, type(flamespawn.get_context())):
        pytest.skip("on Windows the standard library leaves the process behind")
    process = either.Process(target=mp_jobs.nothing, args=(mp_jobs.Refusing(),))

    with pytest.raises(FileNotFoundError, match="no such thing"):
        process.start()

    assert process.pid is None


def test_an_interpreter_that_is_missing(ours: Any) -> None:
    """A missing interpreter is named, and nothing is left of the start."""
    before = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable("/nowhere/python")
    try:
        process = ours.Process(target=mp_jobs.nothing)
        with pytest.raises(FileNotFoundError, match="/nowhere/python"):
            process.start()
    finally:
        multiprocessing.set_executable(before)

    assert process.pid is None
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_frozen_program_has_the_standard_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the interpreter takes no options, everything stays as multiprocessing has it."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    flamespawn.install()

    assert flamespawn.get_context() is multiprocessing.get_context("spawn")
    assert type(flamespawn.get_context()).__module__ == "multiprocessing.context"
    assert not _multiprocessing.is_installed()


# --------------------------------------------------------------------------------- pools, executors


@pytest.mark.wine(EMPTY_MESSAGES)
def test_an_executor(ours: Any) -> None:
    """ProcessPoolExecutor runs its tasks in processes of ours, after the initializer."""
    with ProcessPoolExecutor(2, ours, initializer=mp_jobs.keep, initargs=("kept",)) as executor:
        assert list(executor.map(mp_jobs.square, range(20), chunksize=3)) == [
            number * number for number in range(20)
        ]
        assert set(executor.map(mp_jobs.kept, range(4))) == {"kept"}
        assert executor.submit(mp_jobs.identify).result()[1] == "flamespawn"
        with pytest.raises(ValueError, match="no data"):
            executor.submit(mp_jobs.fail).result()


@pytest.mark.wine(EMPTY_MESSAGES)
def test_an_executor_whose_worker_dies(ours: Any) -> None:
    """A worker that is gone in the middle of a task breaks the executor at once, and for ever."""
    with ProcessPoolExecutor(1, ours) as executor:
        tasks = [executor.submit(os._exit, 3), executor.submit(mp_jobs.square, 2)]
        for task in tasks:
            with pytest.raises(BrokenProcessPool):
                task.result(SECONDS)
        with pytest.raises(BrokenProcessPool):
            executor.submit(mp_jobs.square, 2)


@pytest.mark.wine(EMPTY_MESSAGES)
def test_an_executor_whose_initializer_fails(ours: Any, capfd: Any) -> None:
    """An initializer that raises breaks the executor, and is shown."""
    with ProcessPoolExecutor(1, ours, initializer=mp_jobs.fail) as executor:
        task = executor.submit(mp_jobs.square, 2)
        with pytest.raises(BrokenProcessPool):
            task.result(SECONDS)

    assert "ValueError: no data" in capfd.readouterr().err


@pytest.mark.wine(EMPTY_MESSAGES)
def test_an_executor_that_renews_its_workers(ours: Any) -> None:
    """With max_tasks_per_child, a worker is replaced when it has done its share."""
    with ProcessPoolExecutor(1, ours, max_tasks_per_child=2) as executor:
        pids = [executor.submit(os.getpid).result(SECONDS) for _ in range(4)]

    assert pids[0] == pids[1] != pids[2] == pids[3]


@pytest.mark.wine(EMPTY_MESSAGES)
def test_an_executor_under_asyncio(ours: Any) -> None:
    """An event loop can wait for tasks in processes of ours."""

    async def run_all() -> list[int]:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(2, ours) as executor:
            tasks = [loop.run_in_executor(executor, mp_jobs.square, n) for n in range(4)]
            return await asyncio.gather(*tasks)

    assert asyncio.run(run_all()) == [0, 1, 4, 9]


def test_a_pool(ours: Any) -> None:
    """Pool maps in order and out of order, starmaps, and raises what a task has raised."""
    with ours.Pool(2, mp_jobs.keep, ("kept",)) as pool:
        assert pool.map(mp_jobs.square, range(10)) == [number**2 for number in range(10)]
        assert sorted(pool.imap_unordered(mp_jobs.square, range(10), 2)) == [
            number**2 for number in range(10)
        ]
        assert list(pool.imap(mp_jobs.kept, range(4))) == ["kept"] * 4
        assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
        assert pool.apply(mp_jobs.identify)[1] == "flamespawn"
        with pytest.raises(ValueError, match="no data"):
            pool.apply_async(mp_jobs.fail).get(SECONDS)
        pool.close()
        pool.join()


def test_a_pool_that_is_terminated(ours: Any) -> None:
    """Leaving a pool ends workers in the middle of their tasks."""
    busy = ours.Event()
    with ours.Pool(2, mp_jobs.keep, (busy,)) as pool:
        pool.apply_async(mp_jobs.set_and_sleep)
        assert busy.wait(SECONDS)
        workers = list(pool._pool)

    pool.join()
    assert {process.exitcode for process in workers} <= {0, -signal.SIGTERM}
    assert -signal.SIGTERM in {process.exitcode for process in workers}


def test_a_pool_that_renews_its_workers(ours: Any) -> None:
    """With maxtasksperchild, a worker is replaced when it has done its share."""
    with ours.Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(os.getpid) for _ in range(4)]
        pool.close()
        pool.join()

    assert pids[0] == pids[1] != pids[2] == pids[3]


class Custom(BaseManager):
    pass


Custom.register("Counter", mp_jobs.Counter)


def test_managers(ours: Any) -> None:
    """Objects of a manager are shared by processes of ours, and its end leaves nothing."""
    with ours.Manager() as manager:
        mapping, sequence, queue = manager.dict(), manager.list(), manager.Queue()
        processes = [
            ours.Process(target=mp_jobs.fill, args=(mapping, sequence, queue, number))
            for number in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()

        assert dict(mapping) == {number: process.pid for number, process in enumerate(processes)}
        assert sorted(sequence) == sorted(queue.get() for _ in range(3)) == [0, 1, 2]
        assert manager._process.exitcode is None

    manager._process.join()
    assert manager._process.exitcode == 0


def test_managers_of_other_kinds(ours: Any) -> None:
    """A manager's own classes, and blocks of shared memory, come from a process of ours."""
    with Custom(ctx=ours) as custom:
        counter = custom.Counter()
        assert [run(ours, mp_jobs.count, counter) for _ in range(2)] == [0, 0]
        assert counter.value() == 2
        assert counter.started_by() == "flamespawn"
    with SharedMemoryManager(ctx=ours) as manager:
        numbers = manager.ShareableList([1, 2, 3])
        assert run(ours, mp_jobs.double, numbers) == 0
        assert list(numbers) == [2, 4, 6]
        numbers.shm.close()


# ----------------------------------------------------------------------------------- whole programs

# Runs after multiprocessing's own exit handler, which is registered later.
AT_EXIT = """
import atexit, os, sys

@atexit.register
def last():
    if __name__ == "__main__":
        # Nobody has to collect what has ended on Windows.
        left = [os.name != "nt" and os.path.exists(f"/proc/{each.pid}") for each in processes]
        print([*zip(left, [process.exitcode for process in processes])])

import flamespawn, mp_jobs

if __name__ == "__main__":
    context = flamespawn.get_context()
    here, there = context.Pipe()
    processes = [
        context.Process(target=mp_jobs.announce_and_sleep, args=(there,), daemon=True),
        context.Process(target=mp_jobs.announce_and_wait, args=(there,)),
    ]
    for process in processes:
        process.start()
        here.recv()
    atexit.register(here.send, "go on")
"""


def test_the_end_of_a_program(run_launcher: RunLauncher) -> None:
    """At its end a program terminates its daemonic processes and waits for the others."""
    launcher = run_launcher(AT_EXIT)

    out, err = launcher.communicate(timeout=SECONDS)

    assert (out, err) == (f"[(False, {-signal.SIGTERM}), (False, 0)]\n", "")
    assert launcher.returncode == 0


LINEAGE = """
import json, multiprocessing, sys
import flamespawn, mp_jobs

if __name__ == "__main__":
    how, method = sys.argv[1:]
    if how == "before":
        flamespawn.install()
    multiprocessing.set_start_method(method if how == "before" else "spawn")
    if how == "after":
        flamespawn.install()
    flamespawn.install()
    print(json.dumps(mp_jobs.default_lineage(3)))
"""


@pytest.mark.parametrize(
    ("how", "method"), [("before", "spawn"), ("before", "flamespawn"), ("after", "spawn")]
)
@pytest.mark.wine(EMPTY_MESSAGES)
def test_install_for_children_of_children(run_launcher: RunLauncher, how: str, method: str) -> None:
    """With the start method set before or after install, by either name, all generations use it."""
    launcher = run_launcher(LINEAGE, how, method)

    out, err = launcher.communicate(timeout=SECONDS)

    assert err == ""
    assert json.loads(out)[1:] == [["flamespawn", "spawn"]] * 3


INSTALLED = """
import json, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import flamespawn, mp_jobs

class Subclass(multiprocessing.Process):
    def run(self):
        print(json.dumps([self.name, mp_jobs.started_by()]), flush=True)

def run(process):
    process.start()
    process.join()
    return process.exitcode

if __name__ == "__main__":
    flamespawn.install()
    same = [multiprocessing.get_context(name) is flamespawn.get_context()
            for name in ("spawn", "flamespawn")]
    seen = {"same": same, "default": multiprocessing.get_start_method(allow_none=True)}
    with ProcessPoolExecutor(1, max_tasks_per_child=1) as executor:
        seen["executor"] = executor.submit(mp_jobs.started_by).result()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seen["pool"] = pool.apply(mp_jobs.started_by)
    for name in ("fork", "forkserver"):
        context = multiprocessing.get_context(name)
        queue = context.SimpleQueue()
        code = run(context.Process(target=mp_jobs.put_view, args=(queue,)))
        seen[name] = [code, *queue.get()]
        code = run(context.Process(target=sys.exit, args=(3,)))
        seen[name].append(code)
    print(json.dumps(seen), flush=True)
    multiprocessing.set_start_method("flamespawn", force=True)
    run(Subclass(name="by default"))
"""


@pytest.mark.wine(EMPTY_MESSAGES)
def test_what_install_changes(run_launcher: RunLauncher) -> None:
    """Whoever asks for "spawn" gets ours; the default, fork and forkserver stay what they are."""
    launcher = run_launcher(INSTALLED)

    out, err = launcher.communicate(timeout=SECONDS)

    assert err == ""
    seen, by_default = map(json.loads, out.splitlines())
    assert seen == {
        "same": [True, True],
        "default": None,
        "executor": "flamespawn",
        "pool": "flamespawn",
        "fork": [0, "fork", 3],
        "forkserver": [0, "forkserver", 3],
    }
    assert by_default == ["by default", "flamespawn"]


NOT_INSTALLED = """
import json, multiprocessing
import flamespawn, mp_jobs

if __name__ == "__main__":
    context = flamespawn.get_context()
    queue = context.SimpleQueue()
    process = context.Process(target=mp_jobs.put_lineage, args=(queue, 1))
    process.start()
    print(json.dumps([mp_jobs.started_by(), *queue.get()]))
    process.join()
    print(type(multiprocessing.get_context("spawn")).__module__)
"""


@pytest.mark.wine(EMPTY_MESSAGES)
def test_get_context_changes_nothing(run_launcher: RunLauncher) -> None:
    """Without install, multiprocessing itself is as it was, here and in processes of ours."""
    launcher = run_launcher(NOT_INSTALLED)

    out, err = launcher.communicate(timeout=SECONDS)

    assert err == ""
    lineage, module = out.splitlines()
    assert json.loads(lineage)[1:] == [["flamespawn", "spawn"], ["multiprocessing", "spawn"]]
    assert module == "multiprocessing.context"


NAMED = """
import flamespawn, mp_jobs

context = flamespawn.get_context()
semaphore = context.Semaphore()

if __name__ == "__main__":
    process = context.Process(target=mp_jobs.nothing)
    process.start()
    process.join()
"""


def test_what_a_main_module_makes_is_cleaned_up(run_launcher: RunLauncher) -> None:
    """A semaphore that the main module makes in each process anew is removed by each."""
    launcher = run_launcher(NAMED)

    out, err = launcher.communicate(timeout=SECONDS)

    # Otherwise the resource tracker would complain.
    assert (launcher.returncode, out, err) == (0, "", "")


CHANGING = """
import multiprocessing, sys
import flamespawn

VERSION = 1

def show():
    print(VERSION, flush=True)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    if sys.argv[1] == "flamespawn":
        context = flamespawn.get_context()
    for version in (1, 2, 3):
        process = context.Process(target=show)
        process.start()
        process.join()
        with open(__file__) as file:
            source = file.read()
        with open(__file__, "w") as file:
            file.write(source.replace(f"VERSION = {version}", f"VERSION = {version + 1}"))
"""


@pytest.mark.parametrize("whose", ["multiprocessing", "flamespawn"])
def test_a_script_that_is_changed_while_it_runs(run_launcher: RunLauncher, whose: str) -> None:
    """A process runs the main script as it is when the process is started."""
    launcher = run_launcher(CHANGING, whose)

    out, err = launcher.communicate(timeout=SECONDS)

    assert (out.split(), err) == (["1", "2", "3"], "")
