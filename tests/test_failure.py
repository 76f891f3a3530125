"""Failures: what join raises, which rank it names, and what becomes of the others."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

import conftest
import flamespawn
import jobs

pytestmark = pytest.mark.usefixtures("mechanism")

START_METHODS = ["fork", "spawn", "forkserver"]


def fail(
    fn: Any,
    args: tuple[Any, ...] = (),
    nprocs: int = 3,
    expected: type[flamespawn.ProcessException] = flamespawn.ProcessException,
    **options: Any,
) -> Any:
    """Run a job that must fail, check that no rank is left, and return what was raised."""
    with pytest.raises(expected) as caught:
        flamespawn.start_processes(fn, args, nprocs, **{"start_method": jobs.QUICK, **options})
    assert conftest.children() == set()
    return caught.value


@pytest.mark.parametrize("start_method", START_METHODS)
def test_an_exception_in_a_rank(start_method: str) -> None:
    """The exception arrives with its text, its object, and the rank that raised it."""
    error = fail(
        jobs.call_in,
        (1, jobs.raise_value_error),
        expected=flamespawn.ProcessRaisedException,
        start_method=start_method,
    )

    assert error.error_index == 1
    assert error.pid == error.error_pid == error.fates[1].pid
    assert error.msg == str(error)
    assert error.msg.startswith(
        "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):"
    )
    assert error.msg.endswith("ValueError: wrong value\n")
    assert "_rank.py" not in error.msg
    assert isinstance(error.__cause__, ValueError)
    assert error.__cause__.args == ("wrong value",)
    assert (error.error_type, error.error_message) == ("ValueError", "wrong value")
    assert error.msg.endswith(error.error_traceback)


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize(
    ("function", "argument", "message", "exit_code", "signal_name"),
    [
        (sys.exit, 3, "process 1 terminated with exit code 3", 3, None),
        pytest.param(
            *(sys.exit, -1, "process 1 terminated with exit code 255", 255, None),
            marks=pytest.mark.posix("exit codes of 8 bits"),
        ),
        (sys.exit, "a message", "process 1 terminated with exit code 1", 1, None),
        (os._exit, 4, "process 1 terminated with exit code 4", 4, None),
        (os._exit, 0, "process 1 terminated with exit code 0", 0, None),
        pytest.param(
            *(jobs.die, jobs.SIGKILL, "process 1 terminated with signal SIGKILL", -9, "SIGKILL"),
            marks=pytest.mark.posix("SIGKILL"),
        ),
        pytest.param(
            *(jobs.die, signal.SIGSEGV, "process 1 terminated with signal SIGSEGV", -11, "SIGSEGV"),
            marks=pytest.mark.posix("signals of the system"),
        ),
    ],
)
def test_an_end_without_completion(
    start_method: str,
    function: Any,
    argument: object,
    message: str,
    exit_code: int,
    signal_name: str | None,
) -> None:
    """A rank that exits or dies before its function has returned has failed, exit code 0 or not."""
    error = fail(
        jobs.call_in,
        (1, function, argument),
        expected=flamespawn.ProcessExitedException,
        start_method=start_method,
    )

    assert str(error) == message
    assert (error.error_index, error.exit_code, error.signal_name) == (1, exit_code, signal_name)


@pytest.mark.parametrize("code", [0, None, False])
def test_exit_with_success(code: object) -> None:
    """SystemExit with a code that means success is a success."""
    flamespawn.start_processes(jobs.call_in, (0, sys.exit, code), 1, start_method=jobs.QUICK)


@pytest.mark.posix("SIGINT sent by os.kill")
def test_an_interrupted_rank_has_failed() -> None:
    """SIGINT in one rank is a failure of that rank, and shows where it was interrupted."""
    error = fail(jobs.call_in, (0, jobs.die, signal.SIGINT))

    assert isinstance(error, flamespawn.ProcessRaisedException)
    assert error.error_type == "KeyboardInterrupt"
    assert isinstance(error.__cause__, KeyboardInterrupt)


def test_the_fate_of_every_rank() -> None:
    """The exception lists all ranks, and marks those that the launcher stopped."""
    error = fail(jobs.call_in, (1, jobs.raise_value_error), 4)

    assert [fate.index for fate in error.fates] == [0, 1, 2, 3]
    assert [fate.stopped for fate in error.fates] == [True, False, True, True]
    assert error.fates[1].error == "ValueError"
    assert error.fates[1].exit_code == 1
    assert error.fates[0].signal_name == "SIGTERM"
    assert all(fate.ended for fate in error.fates)
    assert error.__notes__[:1] == [
        "How each rank ended:\n"
        "  ranks 0, 2-3: ended by signal SIGTERM, stopped by the launcher\n"
        "  rank 1: raised ValueError"
    ]


@pytest.mark.posix("a SIGTERM that can be caught")
def test_an_error_in_answer_to_the_stop() -> None:
    """A rank that raises because it was told to stop is a victim; resource usage is known."""
    ours, theirs = zip(*(Pipe() for _ in range(2)))
    context = flamespawn.start_processes(
        jobs.fail_on_sigterm, (list(theirs),), 2, join=False, start_method=jobs.QUICK
    )
    ours[1].recv()
    ours[0].send("fail")

    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        while not context.join():
            pass

    assert caught.value.error_index == 0
    assert caught.value.fates[1].error == "ConnectionResetError"
    assert caught.value.fates[1].stopped
    assert all(fate.max_rss > 0 for fate in caught.value.fates)
    for pipe in (*ours, *theirs):
        pipe.close()


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.posix("waitid")
def test_the_first_failure_is_named_when_the_launcher_looks_late(first: int) -> None:
    """Of several failures that have all been reported, the earliest is named."""
    ours, theirs = zip(*(Pipe() for _ in range(3)))
    context = flamespawn.start_processes(
        release_then_raise, (list(theirs),), 3, join=False, start_method=jobs.QUICK
    )
    for rank in [first, *({0, 1, 2} - {first})]:
        ours[rank].send("fail")
        os.waitid(os.P_PID, context.pids()[rank], os.WEXITED | os.WNOWAIT)

    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        context.join()

    assert caught.value.error_index == first
    assert [fate.error for fate in caught.value.fates] == ["ValueError"] * 3
    for pipe in (*ours, *theirs):
        pipe.close()


@pytest.mark.posix("a SIGTERM that can be caught")
def test_a_culprit_that_has_to_be_stopped_stays_the_culprit() -> None:
    """A rank that has raised and then lingers is not taken for a victim of its own teardown."""
    ours, theirs = zip(*(Pipe() for _ in range(2)))
    context = flamespawn.start_processes(
        linger_or_abort, (list(theirs),), 2, join=False, start_method=jobs.QUICK, grace_period=20
    )
    ours[1].recv()
    ours[0].send("fail")

    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        while not context.join():
            pass

    assert caught.value.error_index == 0
    assert [fate.describe() for fate in caught.value.fates] == [
        "raised ValueError",
        "ended by signal SIGABRT",
    ]
    for pipe in (*ours, *theirs):
        pipe.close()


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_failure_that_takes_long_to_describe(start_method: str) -> None:
    """The rank that raised first is named, although another has said what its error is before."""
    ours, theirs = Pipe()
    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        flamespawn.start_processes(
            describe_slowly, (ours, theirs, 0.3), 2, start_method=start_method, grace_period=20
        )

    assert caught.value.error_index == 1
    assert caught.value.error_message == "at last"
    ours.close()
    theirs.close()


def test_a_failure_that_is_never_described() -> None:
    """A rank that has raised is named also when its error cannot be had within the grace period."""
    ours, theirs = Pipe()
    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        flamespawn.start_processes(
            describe_slowly, (ours, theirs, 600), 2, start_method=jobs.QUICK, grace_period=0.5
        )

    assert caught.value.error_index == 1
    note = "Rank 1 had raised an error, and ended before it had described it."
    assert note in caught.value.__notes__
    ours.close()
    theirs.close()


class SlowError(Exception):
    """
    An error whose text takes its time.

    Attributes:
        pipe: is told when somebody begins to wait for the text.
        seconds: how long it takes.
    """

    def __init__(self, pipe: Any, seconds: float) -> None:
        super().__init__()
        self.pipe = pipe
        self.seconds = seconds

    def __str__(self) -> str:
        if self.pipe is not None:
            self.pipe.send("raised")
            self.pipe = None
            time.sleep(self.seconds)
        return "at last"


def describe_slowly(rank: int, ours: Any, theirs: Any, seconds: float) -> None:
    """Rank 1 raises what takes long to describe, and rank 0 fails meanwhile."""
    if rank == 1:
        raise SlowError(theirs, seconds)
    ours.recv()
    jobs.raise_value_error()


def linger_or_abort(rank: int, pipes: list[Any]) -> None:
    """Rank 0 raises and then does not end by itself; rank 1 aborts when it is told to stop."""
    faulthandler.disable()
    if rank == 0:
        pipes[0].recv()
        jobs.raise_then_hang_in_a_thread()
    signal.signal(signal.SIGTERM, lambda *_: os.abort())
    pipes[1].send("ready")
    jobs.wait_for_signals()


def test_an_end_before_the_function_was_called() -> None:
    """A rank whose arguments do not arrive reports why, before its function is called."""
    error = fail(jobs.nothing, (FailsToArrive(),), 1, start_method="spawn")

    assert isinstance(error, flamespawn.ProcessRaisedException)
    assert error.error_type == "ValueError"
    assert error.error_traceback == (
        "ValueError: invalid literal for int() with base 10: 'not a number'\n"
        "This happened before the function was called, when the rank was prepared.\n"
    )


@pytest.mark.posix("forkserver")
def test_an_end_before_the_rank_could_report() -> None:
    """A rank that ended before it had a report pipe says where to look."""
    error = fail(jobs.nothing, (FailsToArrive(),), 1, start_method="forkserver")

    assert str(error) == "process 0 terminated with exit code 1"
    assert error.__notes__ == [
        "Rank 0 ended before its function was called; the reason is on its stderr."
    ]


class FailsToArrive:
    def __reduce__(self) -> tuple[Any, ...]:
        return (int, ("not a number",))


def test_the_message_of_an_exit() -> None:
    """What sys.exit() was given is shown with the exit code."""
    error = fail(jobs.call_in, (0, sys.exit, "no data at all"), 1)

    assert str(error) == "process 0 terminated with exit code 1"
    assert error.__notes__ == ["Rank 0 exited with the message: no data at all"]


def release_then_raise(rank: int, pipes: list[Any]) -> None:
    pipes[rank].recv()
    jobs.raise_value_error()


@pytest.mark.posix("SIGKILL")
def test_the_first_death_is_named_when_the_launcher_looks_late(mechanism: str) -> None:
    """Of several ranks that died without a word, the one that died first is named."""
    if mechanism == "threads":
        pytest.skip("the order of deaths that nobody waited for is known from pidfds only")
    context = flamespawn.start_processes(
        jobs.wait_forever, nprocs=4, join=False, start_method=jobs.QUICK
    )
    for rank in (3, 0, 2, 1):
        pid = context.pids()[rank]
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        context.join()

    assert caught.value.error_index == 3


@pytest.mark.parametrize("timeout", [None, 0])
@pytest.mark.parametrize("end", ["exit", pytest.param("kill", marks=pytest.mark.posix("SIGKILL"))])
def test_the_peers_of_a_silent_death_are_not_blamed(end: str, timeout: float | None) -> None:
    """A rank that dies without a word is the cause of what its peers then raise."""
    for _ in range(5):
        ends = [Pipe() for _ in range(4)]
        context = flamespawn.start_processes(
            die_or_notice, (end, ends), 4, join=False, start_method=jobs.QUICK
        )
        for one, other in ends:
            one.close()
            other.close()
        with pytest.raises(flamespawn.ProcessExitedException) as caught:
            while not context.join(timeout):
                pass

        assert caught.value.error_index == 0
        assert not caught.value.fates[0].stopped


def die_or_notice(rank: int, end: str, ends: list[Any]) -> None:
    """Rank 0 holds one end of a pipe to each other rank and dies; the others read theirs."""
    for index, (one, other) in enumerate(ends):
        if rank != 0:
            one.close()
        if rank != index:
            other.close()
    if rank == 0:
        if end == "exit":
            os._exit(7)
        jobs.die(signal.SIGKILL)
    ends[rank][1].recv()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only: the end of the main thread")
def test_a_death_that_takes_longer_than_the_reports_of_the_peers(mechanism: str) -> None:
    """A rank that is dying is the cause, although its peers report before it is gone."""
    ends = [Pipe() for _ in range(3)]
    context = flamespawn.start_processes(
        die_slowly_or_notice, (ends,), 3, join=False, start_method=jobs.QUICK
    )
    for one, other in ends:
        one.close()
        other.close()

    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        while not context.join(0):
            pass

    assert caught.value.error_index == 0
    assert caught.value.exit_code == 7
    assert not caught.value.fates[0].stopped


def die_slowly_or_notice(rank: int, ends: list[Any]) -> None:
    """As above, but rank 0 ends thread by thread, and the last one only when it is asked to."""
    if rank != 0:
        die_or_notice(rank, "", ends)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def end() -> None:
        # The kernel marks the main thread as dead before it is waited for.
        while Path("/proc/self/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z":
            os.sched_yield()
        for pair in ends:
            for pipe in pair:
                pipe.close()
        signal.sigwait([signal.SIGTERM])
        os._exit(7)

    threading.Thread(target=end).start()
    jobs.end_this_thread()


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_rank_that_closed_its_pipe_and_is_stopped(start_method: str) -> None:
    """A rank that has closed its report pipe and works on is not to blame for a later failure."""
    ours, theirs = zip(*(Pipe() for _ in range(2)))
    context = flamespawn.start_processes(
        close_pipe_or_die, (list(theirs),), 2, join=False, start_method=start_method
    )
    ours[1].recv()
    while not context.join(0) and context.error_queues[1].fd >= 0:
        time.sleep(0.001)  # the launcher is to see the end of the pipe first
    ours[0].send("die")

    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        while not context.join():
            pass

    assert caught.value.error_index == 0
    assert [fate.stopped for fate in caught.value.fates] == [False, True]
    for pipe in (*ours, *theirs):
        pipe.close()


def close_pipe_or_die(rank: int, pipes: list[Any]) -> None:
    if rank == 0:
        pipes[0].recv()
        os._exit(7)
    os.close(jobs.report_pipe())
    pipes[1].send("closed")
    jobs.wait_forever(rank)


def test_an_endless_grace_period() -> None:
    """Infinity is a grace period: ranks that obey SIGTERM are gone at once."""
    error = fail(jobs.call_in, (0, jobs.raise_value_error), 2, grace_period=float("inf"))

    assert error.error_type == "ValueError"


def test_later_joins_raise_the_same() -> None:
    """The failure is stored: each join raises it again, as an exception of its own."""
    context = flamespawn.start_processes(
        jobs.call_in, (2, jobs.raise_value_error), 3, join=False, start_method=jobs.QUICK
    )
    caught = []
    for timeout in (None, 0, None):
        with pytest.raises(flamespawn.ProcessRaisedException) as info:
            context.join(timeout)
        caught.append(info.value)

    assert {str(error) for error in caught} == {str(caught[0])}
    assert {error.fates for error in caught} == {caught[0].fates}
    assert caught[0].error_index == 2
    assert len({id(error) for error in caught}) == 3


@pytest.mark.parametrize(
    "function", [jobs.raise_then_hang_at_exit, jobs.raise_then_hang_in_a_thread]
)
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_the_report_counts_and_not_the_exit(function: Any, start_method: str) -> None:
    """A rank that hangs after it has raised delays the exception by no more than the grace."""
    start = time.monotonic()
    error = fail(jobs.call_in, (0, function), 2, start_method=start_method, grace_period=0.2)

    assert error.error_type == "ValueError"
    assert time.monotonic() - start < 20


def start_stubborn_ranks(grace_period: float) -> flamespawn.ProcessContext:
    """Start two ranks that ignore SIGTERM, and wait until they do."""
    here, there = Pipe()
    context = flamespawn.start_processes(
        jobs.ignore_sigterm,
        (there,),
        2,
        join=False,
        start_method=jobs.QUICK,
        grace_period=grace_period,
    )
    for _ in range(2):
        here.recv()
    here.close()
    there.close()
    return context


@contextlib.contextmanager
def interrupts(first: float, interval: float = 0) -> Iterator[None]:
    """Raise KeyboardInterrupt in the body, as Ctrl-C does, after some seconds."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, first, interval)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.posix("SIGKILL")
def test_sigterm_that_is_ignored_is_followed_by_sigkill() -> None:
    """Ranks that ignore SIGTERM are killed when the grace period is over."""
    context = start_stubborn_ranks(grace_period=0.3)
    os.kill(context.pids()[1], signal.SIGKILL)
    start = time.monotonic()

    with pytest.raises(flamespawn.ProcessExitedException, match="process 1 .* SIGKILL") as caught:
        context.join()

    assert 0.3 <= time.monotonic() - start < 10
    assert caught.value.fates[0].signal_name == "SIGKILL"
    assert [fate.stopped for fate in caught.value.fates] == [True, False]


@pytest.mark.posix("SIGKILL")
def test_the_grace_period_of_a_join() -> None:
    """join(grace_period=...) overrides what the context was started with."""
    context = start_stubborn_ranks(grace_period=300)
    os.kill(context.pids()[0], signal.SIGKILL)
    start = time.monotonic()

    with pytest.raises(flamespawn.ProcessExitedException):
        context.join(grace_period=0.1)

    assert time.monotonic() - start < 20


@pytest.mark.posix("a SIGTERM that can be ignored")
def test_the_timeout_bounds_a_join_that_meets_a_failure() -> None:
    """A time-out that ends before the ranks are stopped ends the call; the next goes on."""
    context = start_stubborn_ranks(grace_period=1.0)
    os.kill(context.pids()[0], signal.SIGKILL)
    start = time.monotonic()
    early = [context.join(0.05), context.join(0)]
    with pytest.raises(flamespawn.ProcessExitedException):
        while not context.join(0.1):
            pass

    assert early == [False, False]
    assert 1.0 <= time.monotonic() - start < 20


@pytest.mark.posix("SIGKILL")
def test_an_exit_code_after_completion_is_a_failure() -> None:
    """A rank whose function returned, and that then crashes on its way out, has not ended well."""
    error = fail(crash_at_exit, nprocs=1)

    assert str(error) == "process 0 terminated with signal SIGKILL"
    assert error.fates[0].done


def crash_at_exit(rank: int) -> None:
    from multiprocessing import util

    util.Finalize(None, os.kill, (os.getpid(), signal.SIGKILL), exitpriority=1)


@pytest.mark.posix("fork")
def test_a_process_that_fn_forks_is_not_the_rank() -> None:
    """When a forked child of the rank returns from fn, nothing is reported on the rank's behalf."""
    here, there = Pipe()
    error = fail(jobs.fork_and_return, (there,), 1)

    assert error.error_type == "ValueError"
    here.close()
    there.close()


@pytest.mark.posix("SIGALRM")
def test_an_interrupt_while_ranks_are_joined_stops_them() -> None:
    """With join=True, an interrupt ends the ranks before it passes."""
    with interrupts(0.2), pytest.raises(KeyboardInterrupt):
        flamespawn.start_processes(jobs.wait_forever, nprocs=3, start_method=jobs.QUICK)
    assert conftest.children() == set()


@pytest.mark.posix("SIGALRM")
def test_a_second_interrupt_kills_at_once() -> None:
    """While ranks that ignore SIGTERM are being stopped, another interrupt kills them."""
    context = start_stubborn_ranks(grace_period=300)
    with interrupts(0.05, 0.2), pytest.raises(KeyboardInterrupt), context:
        context.join()
    assert conftest.children() == set()
