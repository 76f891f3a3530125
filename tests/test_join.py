"""Joining: time-outs, threads, interrupts, and processes that somebody else reaped."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest

import flamespawn
import jobs
from flamespawn._member import Member
from flamespawn._queues import ReportQueue

pytestmark = pytest.mark.usefixtures("mechanism")

# Generous: what is bounded here takes milliseconds at most.
LIVENESS = 5.0


@contextlib.contextmanager
def waiting_ranks(
    nprocs: int, start_method: str = jobs.QUICK
) -> Iterator[tuple[flamespawn.ProcessContext, list[Connection]]]:
    """Ranks that each run until the test sends them something."""
    ours, theirs = zip(*(Pipe() for _ in range(nprocs)))
    context = flamespawn.start_processes(
        jobs.wait_for_release, (list(theirs),), nprocs, join=False, start_method=start_method
    )
    try:
        yield context, list(ours)
    finally:
        context.kill()
        with contextlib.suppress(flamespawn.ProcessException):
            while not context.join():
                pass
        for pipe in (*ours, *theirs):
            pipe.close()


@pytest.mark.parametrize("timeout", [0, -1, -0.5, 0.0, float("-inf")])
def test_join_without_time_does_not_block(timeout: float) -> None:
    """Zero and negative time-outs look and return."""
    with waiting_ranks(2) as (context, _):
        start = time.monotonic()
        assert context.join(timeout) is False
        assert time.monotonic() - start < LIVENESS


@pytest.mark.parametrize("timeout", [0.0005, 0.05, 1])
def test_join_returns_false_at_the_timeout(timeout: float) -> None:
    """A time-out is over neither before its time nor long after it."""
    # On Windows before 3.13 time.monotonic() tells milliseconds at best.
    with waiting_ranks(1) as (context, _):
        start = time.perf_counter()
        assert context.join(timeout) is False
        assert timeout <= time.perf_counter() - start < timeout + LIVENESS


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_join_returns_when_a_rank_has_ended(start_method: str) -> None:
    """Each join returns False for the ranks that remain, and True with the last one."""
    with waiting_ranks(3, start_method) as (context, pipes):
        for left, rank in [(2, 1), (1, 0), (0, 2)]:
            pipes[rank].send("go")
            assert context.join() is (left == 0)
            assert len(context.sentinels) == left
            assert context.processes[rank].exitcode == 0
            assert not context.processes[rank].is_alive()


@pytest.mark.parametrize("timeout", [None, 0, 1.5, float("inf"), 1e300])
def test_join_after_the_end_returns_true_again(timeout: float | None) -> None:
    """A finished context can be joined any number of times."""
    context = flamespawn.start_processes(
        jobs.nothing, nprocs=2, join=False, start_method=jobs.QUICK
    )
    with context:
        pass

    assert context.join(timeout) is True
    assert context.join() is True


def test_infinite_timeouts_wait() -> None:
    """Infinity and more seconds than a clock has are no time-out at all."""
    for timeout in (float("inf"), 1e300):
        with waiting_ranks(1) as (context, pipes):
            timer = threading.Timer(0.05, pipes[0].send, ["go"])
            timer.start()
            assert context.join(timeout) is True
            timer.join()


@pytest.mark.parametrize("argument", ["timeout", "grace_period"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(float("nan"), ValueError), ("1", TypeError), (True, TypeError), ([], TypeError)],
)
def test_join_refuses_what_is_no_number_of_seconds(
    argument: str, value: object, error: type[Exception]
) -> None:
    """A wrong time is refused by name, and the ranks go on."""
    with waiting_ranks(1) as (context, pipes):
        with pytest.raises(error, match=f"{argument} must be a number of seconds"):
            context.join(**{argument: value})  # type: ignore[arg-type]
        pipes[0].send("go")
        assert context.join() is True


def test_join_from_eight_threads() -> None:
    """Each of eight threads that join until the end learns that all is well."""
    answers: list[object] = []

    def join_all() -> None:
        try:
            while not context.join():
                pass
            answers.append(True)
        except BaseException as error:
            answers.append(error)

    with waiting_ranks(6) as (context, pipes):
        threads = [threading.Thread(target=join_all) for _ in range(8)]
        for thread in threads:
            thread.start()
        for pipe in pipes:
            pipe.send("go")
        for thread in threads:
            thread.join()

    assert answers == [True] * 8


def test_join_from_eight_threads_of_a_job_that_fails() -> None:
    """Each of eight threads gets the failure, as an exception of its own."""
    context = flamespawn.start_processes(
        jobs.call_in, (2, jobs.raise_value_error), 4, join=False, start_method=jobs.QUICK
    )
    caught: list[flamespawn.ProcessRaisedException] = []

    def join_all() -> None:
        try:
            while not context.join():
                pass
        except flamespawn.ProcessRaisedException as error:
            caught.append(error)

    threads = [threading.Thread(target=join_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [error.error_index for error in caught] == [2] * 8
    assert len({id(error) for error in caught}) == 8


def test_a_timeout_ends_while_another_thread_waits() -> None:
    """A thread that waits for its turn keeps to its own time-out."""
    with waiting_ranks(1) as (context, pipes):
        thread = threading.Thread(target=context.join)
        thread.start()
        for timeout in (0, 0.01, 0.05):
            assert context.join(timeout) is False
        pipes[0].send("go")
        thread.join()
        assert context.join() is True


@pytest.mark.posix("SIGALRM")
def test_an_interrupt_passes_at_once_and_loses_nothing() -> None:
    """An exception of a signal handler leaves join; the next join goes on where it was."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        with waiting_ranks(2) as (context, pipes):
            for _ in range(20):
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.002)
                    context.join()
            pipes[0].send("go")
            assert context.join() is False
            pipes[1].send("go")
            assert context.join() is True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.posix("SIGALRM")
def test_signals_at_any_moment_leave_nothing_behind() -> None:
    """Wherever an exception of a handler leaves join, nothing stays taken or installed."""

    class Interrupt(BaseException):
        pass

    def interrupt(signum: int, frame: object) -> None:
        raise Interrupt

    numbers = random.Random(0)
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        with waiting_ranks(1) as (context, pipes):
            for _ in range(2000):
                with contextlib.suppress(Interrupt):
                    try:
                        signal.setitimer(signal.ITIMER_REAL, numbers.uniform(5e-6, 250e-6))
                        while True:
                            context.join(0.00002)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                assert signal.set_wakeup_fd(-1) == -1
                assert context._turn.holder is None
            pipes[0].send("go")
            assert context.join() is True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_an_interrupt_between_an_end_and_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure whose processing was cut short is found by the next join."""
    original = Member.note_failure
    calls = []

    def interrupted(member: Member, *args: object, **kwargs: object) -> None:
        calls.append(member)
        if len(calls) == 1:
            raise KeyboardInterrupt
        original(member, *args, **kwargs)

    monkeypatch.setattr(Member, "note_failure", interrupted)
    context = flamespawn.start_processes(
        jobs.call_in, (0, os._exit, 7), 2, join=False, start_method=jobs.QUICK
    )
    with pytest.raises(KeyboardInterrupt):
        context.join()

    with pytest.raises(flamespawn.ProcessExitedException, match="process 0 .* exit code 7"):
        context.join()


@pytest.mark.parametrize("function", [jobs.raise_value_error, jobs.raise_then_hang_in_a_thread])
def test_an_interrupt_between_a_report_and_its_reading(
    function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that was taken from the pipe when an exception cut the join short is not lost."""
    original = ReportQueue.parse
    calls = []

    def interrupted(source: ReportQueue) -> None:
        calls.append(source)
        if b"ValueError" in source.buffer and calls.count(source) < 4:
            raise KeyboardInterrupt
        original(source)

    monkeypatch.setattr(ReportQueue, "parse", interrupted)
    context = flamespawn.start_processes(
        jobs.call_in, (0, function), 2, join=False, start_method=jobs.QUICK, grace_period=0.1
    )
    interrupts = 0
    deadline = time.monotonic() + 30
    with pytest.raises(flamespawn.ProcessRaisedException, match="wrong value"):
        while time.monotonic() < deadline:
            try:
                context.join(1)
            except KeyboardInterrupt:
                interrupts += 1

    assert interrupts > 0


def test_stop_while_another_thread_joins() -> None:
    """stop() ends the ranks also when another thread has the turn; that thread's join raises."""
    raised: list[flamespawn.ProcessException] = []

    def join() -> None:
        try:
            context.join()
        except flamespawn.ProcessException as error:
            raised.append(error)

    with waiting_ranks(2) as (context, _):
        thread = threading.Thread(target=join)
        thread.start()
        while context._turn.holder is None and thread.is_alive():
            time.sleep(0.001)  # a join in another thread shows itself by nothing else
        context.stop()
        thread.join()
        assert [process.exitcode for process in context.processes] == [-signal.SIGTERM] * 2

    assert len(raised) == 1


@pytest.mark.posix("SIGALRM")
def test_stop_in_a_signal_handler_during_join() -> None:
    """A handler may stop the ranks that its thread is joining; the join then raises."""
    old = signal.signal(signal.SIGALRM, lambda *_: context.stop())
    try:
        with waiting_ranks(2) as (context, _):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(flamespawn.ProcessExitedException, match="SIGTERM"):
                context.join()
    finally:
        signal.signal(signal.SIGALRM, old)


@pytest.mark.posix("SIGALRM")
def test_signalling_in_a_signal_handler_that_interrupts_signalling() -> None:
    """Handlers that kill, while terminate() is at work, do not lock themselves out."""
    old = signal.signal(signal.SIGALRM, lambda *_: context.kill())
    try:
        with waiting_ranks(2) as (context, _):
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            with pytest.raises(flamespawn.ProcessExitedException):
                while True:
                    context.terminate()
                    context.join(0.001)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.parametrize("start_method", ["fork", "forkserver"])
def test_processes_may_be_closed_when_they_have_ended(start_method: str) -> None:
    """A process object that its user closes takes nothing away from the context."""
    with waiting_ranks(3, start_method) as (context, pipes):
        pipes[0].send("go")
        assert context.join() is False
        context.processes[0].close()
        pipes[1].send("go")
        context.processes[1].join()
        context.processes[1].close()
        assert context.join() is False
        pipes[2].send("go")
        assert context.join() is True


@pytest.mark.posix("SIGALRM")
def test_a_handler_that_returns_does_not_end_join() -> None:
    """Handlers run during the wait, at once, and the wait goes on."""
    ran: list[float] = []
    old = signal.signal(signal.SIGALRM, lambda *_: ran.append(time.monotonic()))
    try:
        with waiting_ranks(1) as (context, _):
            start = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert context.join(0.3) is False
            assert 0.05 <= ran[0] - start < 0.25
            assert time.monotonic() - start >= 0.3
    finally:
        signal.signal(signal.SIGALRM, old)


@pytest.mark.posix("set_wakeup_fd with a pipe")
def test_the_wakeup_descriptor_of_others_is_left_alone() -> None:
    """Whoever has set a wake-up descriptor finds it as it was."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    assert signal.set_wakeup_fd(write_end) == -1
    try:
        with waiting_ranks(1) as (context, _):
            context.join(0.01)
    finally:
        assert signal.set_wakeup_fd(-1) == write_end
        os.close(read_end)
        os.close(write_end)


@pytest.mark.posix("SIGALRM")
def test_join_in_a_signal_handler_during_join_is_refused() -> None:
    """A handler that joins what its thread is joining gets an error and no dead-lock."""
    errors: list[RuntimeError] = []

    def join_again(signum: int, frame: object) -> None:
        with pytest.raises(RuntimeError, match="by a signal handler") as caught:
            context.join()
        errors.append(caught.value)

    old = signal.signal(signal.SIGALRM, join_again)
    try:
        with waiting_ranks(1) as (context, _):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert context.join(0.1) is False
    finally:
        signal.signal(signal.SIGALRM, old)
    assert len(errors) == 1


def test_terminate_and_kill_any_number_of_times() -> None:
    """Stopping twice, in any order, before and after the end, is no error."""
    with waiting_ranks(2) as (context, _):
        for _ in range(2):
            context.terminate()
            context.kill()
        with pytest.raises(flamespawn.ProcessExitedException):
            while not context.join():
                pass
        context.kill()
        context.terminate()


def test_signals_from_other_threads_while_the_last_rank_ends() -> None:
    """terminate() and kill() from other threads meet the end of the context without an error."""
    errors: list[BaseException] = []

    def signal_until_the_end(context: flamespawn.ProcessContext) -> None:
        try:
            while len(context.sentinels):
                context.terminate()
                context.kill()
            context.kill()
        except BaseException as error:
            errors.append(error)

    for _ in range(5):
        with waiting_ranks(2) as (context, _):
            threads = [
                threading.Thread(target=signal_until_the_end, args=(context,)) for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            with pytest.raises(flamespawn.ProcessExitedException):
                while not context.join():
                    pass
            for thread in threads:
                thread.join()

    assert errors == []


def test_the_with_statement_joins() -> None:
    """Leaving the block joins all ranks."""
    with waiting_ranks(2) as (context, pipes):
        with context:
            for pipe in pipes:
                pipe.send("go")
        assert [process.exitcode for process in context.processes] == [0, 0]


def test_the_with_statement_stops_when_the_block_raises() -> None:
    """An exception in the block ends the ranks and passes as it is."""
    with waiting_ranks(2) as (context, _):
        with pytest.raises(ZeroDivisionError), context:
            _ = 1 // 0
        assert [process.exitcode for process in context.processes] == [-signal.SIGTERM] * 2


# ------------------------------------------------------------------------------ reaped elsewhere


def reap(pid: int) -> None:
    assert os.waitpid(pid, 0)[0] == pid


def try_to_reap(pid: int) -> None:
    # Either of the two that wait may be the one that gets the status.
    with contextlib.suppress(ChildProcessError):
        reap(pid)


@pytest.mark.posix("waitpid")
def test_a_success_that_somebody_else_reaped() -> None:
    """A rank that said that it is done is a success, whoever took its exit status."""
    with waiting_ranks(2) as (context, pipes):
        pipes[0].send("go")
        reap(context.pids()[0])
        assert context.join() is False
        pipes[1].send("go")
        assert context.join() is True


@pytest.mark.posix("waitpid")
def test_a_death_that_somebody_else_reaped() -> None:
    """A rank that did not say that it is done never counts as a success."""
    with waiting_ranks(2) as (context, _):
        pid = context.pids()[1]
        os.kill(pid, signal.SIGKILL)
        reap(pid)
        with pytest.raises(flamespawn.ProcessExitedException) as caught:
            context.join()

    assert str(caught.value) == "process 1 was reaped elsewhere, its exit status is unknown"
    assert caught.value.exit_code is None
    assert caught.value.fates[1].describe() == "ended, reaped elsewhere, exit status unknown"
    assert not context.processes[1].is_alive()


@pytest.mark.posix("waitpid")
def test_reaped_while_join_waits() -> None:
    """A wait() in another thread does not make join hang."""
    with waiting_ranks(1) as (context, pipes):
        thread = threading.Thread(target=try_to_reap, args=(context.pids()[0],))
        thread.start()
        timer = threading.Timer(0.05, pipes[0].send, ["go"])
        timer.start()
        assert context.join() is True
        thread.join()
        timer.join()


@pytest.mark.parametrize("culprit", [None, 1])
@pytest.mark.posix("SIGCHLD")
def test_sigchld_ignored(culprit: int | None) -> None:
    """Where the kernel reaps by itself, successes are successes and failures failures."""
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        if culprit is None:
            flamespawn.start_processes(jobs.nothing, nprocs=3, start_method=jobs.QUICK)
        else:
            with pytest.raises(flamespawn.ProcessExitedException, match="process 1 was reaped"):
                flamespawn.start_processes(
                    jobs.call_in, (1, os._exit, 0), 3, start_method=jobs.QUICK
                )
    finally:
        signal.signal(signal.SIGCHLD, old)


@pytest.mark.posix("SIGKILL")
def test_processes_may_be_joined_by_their_own_methods() -> None:
    """What multiprocessing has collected itself is known to join, too."""
    with waiting_ranks(2) as (context, pipes):
        pipes[0].send("go")
        context.processes[0].join()
        context.processes[0].close()
        assert context.join() is False
        os.kill(context.pids()[1], signal.SIGKILL)
        context.processes[1].join()
        with pytest.raises(flamespawn.ProcessExitedException) as caught:
            context.join()
    assert caught.value.exit_code == -signal.SIGKILL


@pytest.mark.posix("fork")
def test_a_grandchild_that_holds_the_pipe_delays_nobody() -> None:
    """A rank has ended when its process has, whatever its own children keep open."""
    ours, theirs = Pipe()

    flamespawn.start_processes(jobs.leave_grandchild, (theirs,), 1, start_method=jobs.QUICK)

    os.kill(ours.recv(), signal.SIGKILL)
    theirs.close()
    ours.close()


@pytest.mark.posix("fork")
def test_a_context_belongs_to_its_process() -> None:
    """In a forked process the context refuses to act; nobody's ranks are touched."""
    with waiting_ranks(1) as (context, pipes):
        pid = os.fork()
        if pid == 0:
            code = 1
            for call in (context.join, context.terminate, context.kill):
                try:
                    call()
                except RuntimeError as error:
                    code = 0 if "these ranks belong to process" in str(error) else 1
            os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        pipes[0].send("go")
        assert context.join() is True
