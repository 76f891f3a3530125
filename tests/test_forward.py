"""Signals that the launcher forwards to its ranks."""

from __future__ import annotations

import functools
import gc
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import conftest
import flamespawn
import jobs
import probes

if conftest.ON_WINDOWS:
    pytest.skip("POSIX only: signals that are forwarded", allow_module_level=True)

RunLauncher = Callable[..., "subprocess.Popen[str]"]

START_METHODS = ["spawn", "fork", "forkserver"]

# Lines on stdout, each in one write: who has got what. Handlers of ranks: the time for saving the
# state is as long as it takes until all ranks have begun with it.
LAUNCHER = r"""
import multiprocessing, os, signal, sys, threading, time
import flamespawn, probes

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())

def work(rank, mode, barrier, numbers):
    def handle(number, frame):
        say("rank", rank, "got", number)
        if mode == "save":
            barrier.wait(60)
            say("rank", rank, "has saved")
            sys.exit(0)
        if mode == "complete":
            done.append(number)

    done = []
    for number in numbers:
        signal.signal(number, handle)
    say("rank", rank, "runs as", os.getpid())
    while len(done) < 3:
        # A signal just before a call that waits for it would be waited for for ever.
        time.sleep(0.02)

def user_handler(number, frame):
    say("launcher got", number)

if __name__ == "__main__":
    start_method, mode, where, mechanism, grace, *numbers = sys.argv[1:]
    numbers = [int(number) for number in numbers]
    if mechanism == "threads":
        probes.without_handles()
    for number in numbers:
        signal.signal(number, user_handler)
    barrier = multiprocessing.get_context("spawn").Barrier(2)
    context = flamespawn.start_processes(
        work, (mode, barrier, numbers), 2, join=False, start_method=start_method,
        forward_signals=numbers, grace_period=float(grace),
    )

    def join():
        try:
            while not context.join():
                pass
        except SystemExit as error:
            say("join raised", error.code)
            raise
        finally:
            say("restored" if where == "thread" or restored() else "not restored")

    def restored():
        return all(signal.getsignal(number) is user_handler for number in numbers)

    if where == "thread":
        thread = threading.Thread(target=join)
        thread.start()
        say("launcher joins")
        while thread.is_alive():
            # In steps: a signal that comes just before the main thread waits does not wake it.
            thread.join(0.05)
        assert restored()
        context.join()
    else:
        say("launcher joins")
        join()
    say("launcher is done")
"""


class Job:
    """A launcher with two ranks that wait for signals."""

    def __init__(self, launcher: subprocess.Popen[str]) -> None:
        self.launcher = launcher
        lines = [self.line() for _ in range(3)]
        self.pids = [int(line.split()[-1]) for line in lines if line.startswith("rank")]

    def line(self) -> str:
        assert self.launcher.stdout is not None
        return self.launcher.stdout.readline().rstrip()

    def lines(self, count: int) -> list[str]:
        return sorted(self.line() for _ in range(count))

    def rest(self) -> list[str]:
        # communicate() would pass over what has been read with the lines before.
        assert self.launcher.stdout is not None
        assert self.launcher.stderr is not None
        out, err = self.launcher.stdout.read(), self.launcher.stderr.read()
        self.launcher.wait(timeout=probes.SECONDS)
        assert err == ""
        assert not any(psutil.pid_exists(pid) for pid in self.pids)
        return out.splitlines()


@pytest.fixture
def start(run_launcher: RunLauncher) -> Callable[..., Job]:
    def run(
        mode: str,
        *signals: int,
        start_method: str = "spawn",
        where: str = "main",
        mechanism: str = "handles",
        grace: float = 600,
    ) -> Job:
        numbers = [int(signum) for signum in signals]
        return Job(run_launcher(LAUNCHER, start_method, mode, where, mechanism, grace, *numbers))

    return run


@pytest.mark.parametrize("mechanism", ["handles", "threads"])
@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_job_that_is_preempted(
    start_method: str, signum: int, where: str, mechanism: str, start: Callable[..., Job]
) -> None:
    """Each rank gets the signal once, saves its state, and the launcher exits with 143 or 129."""
    job = start("save", signum, start_method=start_method, where=where, mechanism=mechanism)

    job.launcher.send_signal(signum)

    assert job.lines(2) == [f"rank {rank} got {int(signum)}" for rank in range(2)]
    assert sorted(job.rest()) == sorted(
        ["rank 0 has saved", "rank 1 has saved", f"join raised {128 + signum}", "restored"]
    )
    assert job.launcher.returncode == 128 + signum


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_ranks_that_do_not_end_in_time(signum: int, start: Callable[..., Job]) -> None:
    """When the grace period is over they are killed, and the launcher exits in the same way."""
    job = start("stay", signum, grace=0.5)

    job.launcher.send_signal(signum)

    assert job.lines(2) == [f"rank {rank} got {int(signum)}" for rank in range(2)]
    assert job.rest() == [f"join raised {128 + signum}", "restored"]
    assert job.launcher.returncode == 128 + signum


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_end_nothing(signum: int, where: str, start: Callable[..., Job]) -> None:
    """SIGUSR1 and SIGUSR2 are forwarded each time, once, and the job goes on to its end."""
    job = start("complete", signum, where=where)

    for _ in range(3):
        job.launcher.send_signal(signum)
        assert job.lines(2) == [f"rank {rank} got {int(signum)}" for rank in range(2)]

    assert job.rest() == ["restored", "launcher is done"]
    assert job.launcher.returncode == 0


def test_several_signals_of_one_job(start: Callable[..., Job]) -> None:
    """SIGUSR1 first and SIGTERM later: each is forwarded as what it is."""
    job = start("complete", signal.SIGUSR1, signal.SIGTERM, grace=0.5)

    job.launcher.send_signal(signal.SIGUSR1)
    assert job.lines(2) == [f"rank {rank} got {int(signal.SIGUSR1)}" for rank in range(2)]
    job.launcher.send_signal(signal.SIGTERM)
    assert job.lines(2) == [f"rank {rank} got {int(signal.SIGTERM)}" for rank in range(2)]

    assert job.rest() == ["join raised 143", "restored"]
    assert job.launcher.returncode == 143


# ------------------------------------------------------------------------------- in this process


@pytest.fixture
def handlers() -> Any:
    """Give the signals handlers of the test's own; return what tells whether these are there."""

    def own(number: int, frame: object) -> None:
        got.append(number)

    got: list[int] = []
    signals = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
    before = [signal.signal(signum, own) for signum in signals]
    own.got = got  # type: ignore[attr-defined]
    own.restored = lambda: all(signal.getsignal(signum) is own for signum in signals)  # type: ignore[attr-defined]
    yield own
    for signum, handler in zip(signals, before, strict=True):
        signal.signal(signum, handler)


def ranks_that_wait(**options: Any) -> flamespawn.ProcessContext:
    """Start ranks that have inherited handlers with which they outlive a SIGTERM."""
    context = flamespawn.start_processes(
        jobs.wait_forever,
        nprocs=2,
        join=False,
        start_method="fork",
        grace_period=0.1,
        **options,
    )
    assert context is not None
    return context


def test_no_signal_is_taken_by_default(handlers: Any) -> None:
    """Without the option all signals are left alone."""
    with pytest.raises(flamespawn.ProcessExitedException), ranks_that_wait() as context:
        assert handlers.restored()
        signal.raise_signal(signal.SIGTERM)
        assert handlers.got == [signal.SIGTERM]
        context.kill()


def test_every_join_raises_the_same(handlers: Any) -> None:
    """The exit is stored, and it has no cause when no rank had failed before."""
    context = ranks_that_wait(forward_signals=[signal.SIGTERM])
    signal.raise_signal(signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            context.join()
        assert caught.value.code == 143
        assert caught.value.__cause__ is None
    assert handlers.restored()
    assert handlers.got == []


def test_a_failure_before_the_signal_is_the_cause(handlers: Any) -> None:
    """A rank that had failed for a reason of its own is not lost."""
    context = flamespawn.start_processes(
        jobs.raise_in,
        (1, ValueError("before")),
        2,
        join=False,
        start_method="fork",
        grace_period=0.1,
        forward_signals=[signal.SIGHUP],
    )
    assert context is not None
    context.processes[1].join()
    signal.raise_signal(signal.SIGHUP)

    with pytest.raises(SystemExit) as caught:
        context.join()

    assert caught.value.code == 129
    assert isinstance(caught.value.__cause__, flamespawn.ProcessRaisedException)
    assert caught.value.__cause__.error_message == "before"


def test_two_contexts_forward_the_same_signal(handlers: Any) -> None:
    """Ranks of both get it, whichever ends first, and then the handlers are the user's."""
    first, second, third = (ranks_that_wait(forward_signals=[signal.SIGTERM]) for _ in range(3))
    first.stop()
    assert not handlers.restored()
    signal.raise_signal(signal.SIGTERM)

    for context in (third, second):
        assert not handlers.restored()
        with pytest.raises(SystemExit):
            context.join()
    assert handlers.restored()
    assert handlers.got == []


def test_a_rank_that_a_forwarded_signal_kills_has_failed(handlers: Any) -> None:
    """SIGUSR1 ends a rank that does not handle it, which is that rank's failure."""
    context = flamespawn.spawn(
        jobs.wait_forever, nprocs=1, join=False, forward_signals=[signal.SIGUSR1]
    )
    assert context is not None
    signal.raise_signal(signal.SIGUSR1)

    with pytest.raises(flamespawn.ProcessExitedException, match="signal SIGUSR1") as caught:
        context.join()
    assert not caught.value.fates[0].stopped


def test_stop_and_drop_restore_handlers(handlers: Any) -> None:
    """However the context ends, the handlers are restored."""
    context: Any = ranks_that_wait(forward_signals=[signal.SIGTERM, signal.SIGUSR1])
    assert not handlers.restored()
    context.stop()
    assert handlers.restored()

    context = ranks_that_wait(forward_signals=[signal.SIGTERM])
    with pytest.warns(ResourceWarning):
        del context
        gc.collect()
    assert handlers.restored()


def test_an_end_in_another_thread_restores_handlers(handlers: Any) -> None:
    """Handlers can be set in the main thread only, which does so as soon as it runs."""
    context = ranks_that_wait(forward_signals=[signal.SIGTERM])
    thread = threading.Thread(target=context.stop)
    thread.start()
    thread.join()

    assert handlers.restored()
    signal.raise_signal(signal.SIGTERM)
    assert handlers.got == [signal.SIGTERM]


def test_a_handler_that_was_set_meanwhile_stays(handlers: Any) -> None:
    """What somebody has set while ranks ran is not overwritten at the end."""
    context = ranks_that_wait(forward_signals=[signal.SIGUSR1])
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    context.stop()

    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


class RaisesSignal:
    """An argument that is being pickled as a signal arrives."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        signal.raise_signal(signal.SIGTERM)
        if self.error is not None:
            raise self.error
        return (int, ())


def test_a_signal_during_the_start_is_forwarded(handlers: Any) -> None:
    """One that comes before there are ranks waits for them."""
    with pytest.raises(SystemExit):
        flamespawn.spawn(jobs.wait_forever, (RaisesSignal(),), forward_signals=[signal.SIGTERM])

    assert handlers.restored()
    assert handlers.got == []


def test_a_signal_during_a_start_that_fails_is_the_launchers(handlers: Any) -> None:
    """One that no rank has got goes to whom it would have gone."""
    args = (RaisesSignal(OSError("no")),)
    with pytest.raises(OSError, match="no"):
        flamespawn.spawn(jobs.nothing, args, forward_signals=[signal.SIGTERM])

    assert handlers.restored()
    assert handlers.got == [signal.SIGTERM]


def test_ranks_that_are_forked_have_the_users_handlers(handlers: Any) -> None:
    """The handler that forwards is the launcher's, not one of the processes that it forks."""
    context = flamespawn.start_processes(
        jobs.call_in,
        (0, functools.partial(check_handlers, handlers)),
        start_method="fork",
        join=False,
        forward_signals=[signal.SIGTERM],
    )
    assert context is not None
    pid = os.fork()
    if pid == 0:
        os._exit(0 if handlers.restored() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert context.join()


def check_handlers(handlers: Any) -> None:
    assert handlers.restored()


WRONG: list[tuple[Any, type[Exception], str]] = [
    (signal.SIGTERM, TypeError, "forward_signals must be a sequence of signals, not Signals"),
    ("SIGTERM", TypeError, "forward_signals must be a sequence of signals, not str"),
    ([signal.SIGINT], ValueError, "forward_signals can contain SIGTERM, .*, not .*SIGINT"),
    ([signal.SIGKILL], ValueError, "forward_signals can contain .*, not .*SIGKILL"),
    (["SIGTERM"], ValueError, "forward_signals can contain .*, not 'SIGTERM'"),
    ([True], ValueError, "forward_signals can contain .*, not True"),
]


@pytest.mark.parametrize(("value", "error", "message"), WRONG)
def test_signals_that_cannot_be_forwarded(
    value: Any, error: type[Exception], message: str, handlers: Any
) -> None:
    """They are refused by the name of the argument, before anything starts."""
    with pytest.raises(error, match=message):
        flamespawn.spawn(jobs.nothing, forward_signals=value)
    assert handlers.restored()


def test_forwarding_in_another_thread_is_refused(handlers: Any) -> None:
    """Python has handlers in the main thread only, and so says the error."""
    errors = []

    def start() -> None:
        try:
            flamespawn.spawn(jobs.nothing, forward_signals=[signal.SIGTERM])
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert len(errors) == 1
    assert errors[0].startswith("forward_signals needs the main thread")
