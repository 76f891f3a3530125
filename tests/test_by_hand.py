"""Contexts made by hand from processes and queues of multiprocessing."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import pytest

import flamespawn
import jobs

pytestmark = pytest.mark.usefixtures("mechanism")

START_METHODS = ["fork", "spawn", "forkserver"]


def make_context(
    start_method: str, jobs_to_run: list[tuple[Any, tuple[Any, ...]]], queue_type: str
) -> tuple[flamespawn.ProcessContext, list[Any]]:
    """Start one process for each job; the job gets its queue as the first argument."""
    context: Any = multiprocessing.get_context(start_method)
    queues = [getattr(context, queue_type)() for _ in jobs_to_run]
    processes = [
        context.Process(target=function, args=(queue, *args))
        for (function, args), queue in zip(jobs_to_run, queues)
    ]
    for process in processes:
        process.start()
    return flamespawn.ProcessContext(processes, queues), queues


def close(queues: list[Any]) -> None:
    for queue in queues:
        queue.close()
        if hasattr(queue, "join_thread"):
            queue.join_thread()


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("queue_type", ["SimpleQueue", "Queue", "JoinableQueue"])
@pytest.mark.parametrize("size", [10, 200_000])
def test_a_traceback_in_the_queue(start_method: str, queue_type: str, size: int) -> None:
    """What a process put into its queue is the error, short or longer than a pipe holds."""
    text = "Traceback: " + "x" * size
    context, queues = make_context(
        start_method,
        [(jobs.wait_forever, ()), (jobs.put_and_exit, (text, 1))],
        queue_type,
    )

    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        context.join()

    assert caught.value.msg == f"\n\n-- Process 1 terminated with the following error:\n{text}"
    assert caught.value.error_index == 1
    assert caught.value.error_traceback == text
    assert caught.value.error_type is None
    assert caught.value.fates[0].stopped
    assert [process.exitcode for process in context.processes] == [-signal.SIGTERM, 1]
    close(queues)


def test_a_traceback_counts_before_the_exit() -> None:
    """A process that hangs after having put its error delays nobody."""
    context, queues = make_context(jobs.QUICK, [(jobs.put_and_hang, ("error",))], "SimpleQueue")

    with pytest.raises(flamespawn.ProcessRaisedException):
        context.join(grace_period=0.1)
    close(queues)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_processes_that_succeed(start_method: str) -> None:
    """Exit code 0 and an empty queue is success; there may be no queue at all."""
    context: Any = multiprocessing.get_context(start_method)
    processes = [context.Process(target=jobs.nothing, args=(0,)) for _ in range(2)]
    queue = context.SimpleQueue()
    for process in processes:
        process.start()
    job = flamespawn.ProcessContext(processes, [None, queue])

    while not job.join():
        pass

    assert [process.exitcode for process in processes] == [0, 0]
    assert multiprocessing.active_children() == []
    queue.close()


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [
        (jobs.exit_with, 3, "process 0 terminated with exit code 3"),
        pytest.param(
            *(jobs.die, jobs.SIGKILL, "process 0 terminated with signal SIGKILL"),
            marks=pytest.mark.posix("SIGKILL"),
        ),
    ],
)
def test_processes_that_end_without_a_traceback(
    start_method: str, function: Any, argument: int, message: str
) -> None:
    """The exit code or the signal is the error."""
    context: Any = multiprocessing.get_context(start_method)
    process = context.Process(target=function, args=(argument,))
    process.start()

    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        flamespawn.ProcessContext([process], [None]).join()

    assert str(caught.value) == message


def test_processes_that_have_ended_before() -> None:
    """Processes may have ended, and even been joined, when the context is made."""
    context: Any = multiprocessing.get_context(jobs.QUICK)
    processes = [context.Process(target=jobs.exit_with, args=(code,)) for code in (0, 5)]
    for process in processes:
        process.start()
        process.join()

    with pytest.raises(flamespawn.ProcessExitedException, match="process 1 .* exit code 5"):
        flamespawn.ProcessContext(processes, [None, None]).join()


def test_a_queue_of_a_manager() -> None:
    """A queue without a pipe of its own is asked when the process has ended."""
    with multiprocessing.get_context(jobs.QUICK).Manager() as manager:
        queue = manager.Queue()
        context: Any = multiprocessing.get_context(jobs.QUICK)
        process = context.Process(target=jobs.put_and_exit, args=(queue, "from afar", 1))
        process.start()
        with pytest.raises(flamespawn.ProcessRaisedException, match="from afar"):
            flamespawn.ProcessContext([process], [queue]).join()


def test_a_queue_of_a_manager_that_is_gone() -> None:
    """An error queue that cannot be asked makes a failure, and the ranks are stopped."""
    context: Any = multiprocessing.get_context(jobs.QUICK)
    with context.Manager() as manager:
        queue = manager.Queue()
    processes = [context.Process(target=jobs.exit_with, args=(0,)) for _ in range(2)]
    for process in processes:
        process.start()

    job = flamespawn.ProcessContext(processes, [queue, None])
    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        while not job.join():
            pass

    assert "its error queue failed with" in caught.value.__notes__[0]


def test_one_queue_for_two_processes_is_refused() -> None:
    """Each process needs a queue of its own, or nobody could tell whose error it is."""
    context: Any = multiprocessing.get_context(jobs.QUICK)
    queue = context.SimpleQueue()
    processes = [context.Process(target=jobs.exit_with, args=(0,)) for _ in range(2)]
    for process in processes:
        process.start()

    with pytest.raises(ValueError, match="error_queues must be different queues"):
        flamespawn.ProcessContext(processes, [queue, queue])
    for process in processes:
        process.join()
    queue.close()


@pytest.mark.posix("SIGKILL")
def test_a_process_killed_in_the_middle_of_its_report() -> None:
    """Half a traceback blocks nobody; the exit status is the error."""
    context: Any = multiprocessing.get_context(jobs.QUICK)
    queue = context.SimpleQueue()
    process = context.Process(target=write_half, args=(queue,))
    process.start()

    with pytest.raises(flamespawn.ProcessExitedException, match="SIGKILL"):
        flamespawn.ProcessContext([process], [queue]).join()
    queue.close()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\0\0\0\4abcd", flamespawn.ProcessRaisedException),
        (b"\x80\0\0\0rubbish", flamespawn.ProcessExitedException),
        (b"\xff\xff\xff\xff" + b"\x7f" * 20, flamespawn.ProcessExitedException),
    ],
)
@pytest.mark.posix("the framing of a connection")
def test_rubbish_in_a_queue(data: bytes, error: type[Exception]) -> None:
    """Bytes that no queue has sent make a failure and nothing worse."""
    context: Any = multiprocessing.get_context(jobs.QUICK)
    queue = context.SimpleQueue()
    process = context.Process(target=write_bytes, args=(queue, data))
    process.start()

    with pytest.raises(error):
        flamespawn.ProcessContext([process], [queue]).join()
    queue.close()


def write_bytes(queue: Any, data: bytes) -> None:
    os.write(queue._writer.fileno(), data)


def write_half(queue: Any) -> None:
    os.write(queue._writer.fileno(), b"\0\0\x10\0half")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("processes", "queues", "message"),
    [
        ([], [], "processes must not be empty"),
        ([multiprocessing.Process()], [None, None], "error_queues has 2 entries for 1 processes"),
        ([multiprocessing.Process()], [None], r"processes\[0\] has not been started"),
    ],
)
def test_what_does_not_fit_is_refused(processes: Any, queues: Any, message: str) -> None:
    """Arguments that make no context are refused by name."""
    with pytest.raises(ValueError, match=message):
        flamespawn.ProcessContext(processes, queues)
