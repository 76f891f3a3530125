"""Stacks: where the ranks were when one failed, and where one has crashed."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import conftest
import flamespawn
import jobs
import stack_jobs
from flamespawn import Fate, _frames, _native, _stacks, _teardown
from flamespawn._queues import ReportQueue

START_METHODS = ["fork", "spawn", "forkserver"]
SEGMENTATION_FAULT = "access violation" if conftest.ON_WINDOWS else "Segmentation fault"


@contextlib.contextmanager
def ranks_that(*ways: str, **options: Any) -> Iterator[tuple[Any, Connection]]:
    """Start a rank for each way to stay, and yield when all do: the context, and what ends it."""
    release, released = Pipe()
    pairs = [Pipe(duplex=False) for _ in ways]
    context = flamespawn.start_processes(
        stack_jobs.stay_as,
        (released, [end for _, end in pairs], list(ways)),
        len(ways) + 1,
        join=False,
        **{"start_method": jobs.QUICK, **options},
    )
    assert context is not None
    try:
        for receiver, sender in pairs:
            sender.close()
            with contextlib.suppress(EOFError):
                receiver.recv()
        yield context, release
    finally:
        context.kill()
        context.stop()
        for connection in (release, released, *(receiver for receiver, _ in pairs)):
            connection.close()


def failure_of(*ways: str, **options: Any) -> Any:
    """Let rank 0 fail when the others are where they are to stay."""
    with ranks_that(*ways, **options) as (context, release):
        release.send("fail")
        with pytest.raises(flamespawn.ProcessException) as caught:
            while not context.join():
                pass
        assert caught.value.fates[0].error == "ValueError"
        return caught.value


def note_of(error: BaseException) -> list[str]:
    """Return the lines of the note about stacks."""
    (note,) = (note for note in error.__notes__ if note.startswith("Where the other ranks were"))
    return str(note).splitlines()[1:]


@pytest.fixture
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody be called stuck because the machine is busy."""
    monkeypatch.setattr(_teardown, "ANSWER_TIME", 60.0)


# ----------------------------------------------------------------------------------- the question


@pytest.mark.usefixtures("no_hurry", "mechanism")
@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize(
    "way", ["stay_asleep", "stay_in_a_lock", "stay_in_a_read", "stay_in_python"]
)
@pytest.mark.posix("a signal that asks for stacks")
def test_a_rank_in_the_interpreter(way: str, start_method: str) -> None:
    """A rank that waits or computes shows where, and answers."""
    error = failure_of(way, start_method=start_method, grace_period=100)

    assert list(error.stacks) == [1]
    assert f"in {way}\n" in error.stacks[1]
    assert [fate.answered for fate in error.fates] == [None, True]
    assert error.fates[1].signal_name == "SIGTERM"
    assert note_of(error)[0] == "  rank 1:"
    assert any(line.endswith(f"in {way}") for line in note_of(error))
    assert not any("_rank.py" in line for line in note_of(error))


@pytest.mark.usefixtures("mechanism")
@pytest.mark.posix("a signal that asks for stacks")
def test_a_rank_in_c_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose interpreter does not answer is said to be stuck, and shows where."""
    # Time enough to write, on a busy machine.
    monkeypatch.setattr(_teardown, "ANSWER_TIME", 4.0)
    error = failure_of("stay_in_c", grace_period=100)

    assert "in stay_in_c\n" in error.stacks[1]
    assert error.fates[1].answered is False
    assert note_of(error)[0] == (
        "  rank 1: stuck in C code, or busy: its interpreter did not answer"
    )
    assert note_of(error)[1].endswith("in stay_in_c")


@pytest.mark.usefixtures("mechanism")
@pytest.mark.posix("a signal that asks for stacks")
def test_a_stopped_rank() -> None:
    """A rank that cannot even write its stacks is told apart from one that is stuck in C code."""
    error = failure_of("stay_stopped", grace_period=0.5)

    assert error.stacks == {}
    assert error.fates[1].answered is False
    assert note_of(error) == [
        "  rank 1: no stack: it is stopped, stuck in the kernel, or blocks the signal"
    ]


@pytest.mark.usefixtures("no_hurry")
@pytest.mark.posix("a signal that asks for stacks")
def test_many_ranks_make_few_lines() -> None:
    """Ranks in one place share their lines, and a long stack is cut."""
    error = failure_of(*["stay_asleep"] * 10, *["stay_deep"] * 10, grace_period=100)

    lines = note_of(error)
    assert [line for line in lines if not line.startswith("   ")] == [
        "  ranks 1-10:",
        "  ranks 11-20:",
    ]
    assert lines[-1].startswith("    ... and ")
    assert len(lines) < 15
    assert len(error.stacks) == 20


def test_a_stop_asks_nobody() -> None:
    """Only a failure is a reason to ask: not stop(), and not a grace period of nothing."""
    with ranks_that("stay_asleep") as (context, _):
        context.stop()
        with pytest.raises(flamespawn.ProcessException) as caught:
            context.join()
    assert caught.value.stacks == {}
    assert [fate.answered for fate in caught.value.fates] == [None, None]

    assert failure_of("stay_asleep", grace_period=0).stacks == {}


@pytest.mark.posix("a signal that asks for stacks")
def test_a_question_takes_no_longer_than_the_grace() -> None:
    """A rank that does not answer gets its SIGTERM and SIGKILL in time."""
    started = time.monotonic()
    error = failure_of("stay_stopped", "stay_in_c", grace_period=0.1)

    assert time.monotonic() - started < 30
    assert [fate.answered for fate in error.fates] == [None, False, False]


@pytest.mark.usefixtures("no_hurry")
@pytest.mark.posix("a signal that asks for stacks")
def test_a_rank_that_dies_of_the_question() -> None:
    """A rank that has taken away what answers was stopped by the launcher."""
    error = failure_of("take_the_answer_away", grace_period=100)

    assert error.fates[1].stopped
    assert error.stacks == {}


@pytest.mark.usefixtures("no_hurry")
@pytest.mark.posix("a signal that asks for stacks")
def test_another_program_is_not_asked() -> None:
    """A rank that has become another program gets SIGTERM and nothing else."""
    error = failure_of("become_another_program", grace_period=100)

    assert error.fates[1].answered is None
    assert error.fates[1].signal_name == "SIGTERM"


@pytest.mark.posix("a signal that asks for stacks")
def test_a_signal_that_the_user_has_taken() -> None:
    """A handler of the signal that the launcher has by itself stays, and nobody is asked."""
    number = signal.SIGRTMAX - 1
    before = signal.signal(number, lambda *_: None)
    try:
        error = failure_of("stay_asleep")
    finally:
        signal.signal(number, before)

    assert error.fates[1].answered is None


# ------------------------------------------------------------------------------------------ crash


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    ("function", "end", "title"),
    [
        (
            stack_jobs.crash,
            0xC000_0005 if conftest.ON_WINDOWS else "SIGSEGV",
            SEGMENTATION_FAULT,
        ),
        (stack_jobs.abort, 3 if conftest.ON_WINDOWS else "SIGABRT", "Aborted"),
    ],
)
def test_a_crash(function: Any, end: int | str, title: str, start_method: str) -> None:
    """The exception of a rank that crashes has its stacks, and a note that says where."""
    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        flamespawn.start_processes(jobs.call_in, (1, function), 2, start_method=start_method)

    error = caught.value
    assert end == (error.exit_code if conftest.ON_WINDOWS else error.signal_name)
    assert f": {title}\n" in error.stacks[1].splitlines(keepends=True)[0]
    assert f"in {function.__name__}\n" in error.stacks[1]
    (note,) = (note for note in error.__notes__ if note.startswith("Rank 1 crashed"))
    assert note.startswith(f"Rank 1 crashed ({title}) in:\n")
    assert f"in {function.__name__}\n" in note
    assert "_rank.py" not in note


def test_a_faulthandler_of_the_user(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the user has enabled goes where the user wants it."""
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        flamespawn.spawn(jobs.call_in, (0, stack_jobs.crash))

    assert caught.value.signal_name == (None if conftest.ON_WINDOWS else "SIGSEGV")
    assert caught.value.stacks == {}
    assert f": {SEGMENTATION_FAULT}\n" in capfd.readouterr().err


# ------------------------------------------------------------------------------------------ forks


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    ("function", "args"),
    [(stack_jobs.crash_in_a_fork, ()), (stack_jobs.crash_in_a_silent_fork, (5,))],
)
@pytest.mark.posix("fork")
def test_a_fork_that_crashes(function: Any, args: tuple[Any, ...], start_method: str) -> None:
    """A crash of what a rank has forked is not the rank's, and makes no report unreadable."""
    flamespawn.start_processes(jobs.call_in, (0, function, *args), start_method=start_method)


@pytest.mark.posix("fork")
def test_a_crash_that_is_not_the_ranks() -> None:
    """The stacks of a rank that exits are not those of a fork that has crashed."""
    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        flamespawn.spawn(stack_jobs.crash_in_a_silent_fork_and_exit)

    assert str(caught.value) == "process 0 terminated with exit code 3"
    assert caught.value.stacks == {}


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.posix("fork")
def test_a_fork_does_not_answer(start_method: str, tmp_path: Path) -> None:
    """The signal of the question has its default action in a process that a rank has forked."""
    path = tmp_path / "end"
    flamespawn.start_processes(
        jobs.call_in, (0, stack_jobs.ask_fork, str(path)), start_method=start_method
    )

    assert path.read_text() == "True True"


@pytest.mark.posix("fork")
def test_a_file_in_place_of_the_pipe(tmp_path: Path) -> None:
    """A descriptor that the function has made its own is left alone in a fork."""
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(flamespawn.ProcessExitedException):
        flamespawn.spawn(jobs.call_in, (0, stack_jobs.put_a_file_in_place, str(path)))

    assert path.read_text() == "from the fork"


@pytest.mark.posix("fork")
def test_a_rank_of_a_rank() -> None:
    """A rank that a rank forks tells its own launcher where it has crashed."""
    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        flamespawn.spawn(stack_jobs.fork_a_rank_that_crashes)

    cause = caught.value.__cause__
    assert isinstance(cause, flamespawn.ProcessExitedException)
    assert "in crash\n" in cause.stacks[0]
    assert caught.value.stacks == {}


# ------------------------------------------------------------------------ text between the frames


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.posix("a signal that asks for stacks")
def test_a_question_at_any_time(start_method: str) -> None:
    """Whoever asks, and how often: a success stays one, and a failure arrives whole."""
    flamespawn.start_processes(
        jobs.call_in, (0, stack_jobs.ask_itself, 1000), start_method=start_method
    )
    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        flamespawn.start_processes(
            jobs.call_in,
            (0, stack_jobs.ask_itself_from_a_thread, 1_000_000),
            start_method=start_method,
        )

    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.error_message == "x" * (1 << 22)


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.posix("a signal that asks for stacks")
def test_a_handler_that_raises_during_the_answer(start_method: str) -> None:
    """What a signal handler raises meanwhile is no error of the answer, and is not lost."""
    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        flamespawn.start_processes(
            jobs.call_in,
            (0, stack_jobs.be_told_to_stop_while_answering),
            start_method=start_method,
        )

    assert caught.value.error_message == "by the handler"


DUMP = b"""\
Thread 0x1 (most recent call first):
  File "a.py", line 1 in f

Current thread 0x2 (most recent call first):
  File "b.py", line 2 in g
  File "c.py", line 3 in h
"""


@pytest.fixture
def queue() -> Iterator[ReportQueue]:
    read_end, write_end = _native.open_pipe()
    report_queue = ReportQueue(read_end)
    yield report_queue
    report_queue.close()
    write_end.close()


def frame(kind: int, body: bytes = b"") -> bytes:
    return _frames.pack_header(kind, 0, 1, 2, len(body)) + body


def test_text_in_pieces(queue: ReportQueue) -> None:
    """Frames and text may come in pieces of any size."""
    started = frame(_frames.STARTED, _frames.pack(63, _frames.CODE_SIZE))
    for byte in started + DUMP + frame(_frames.ANSWERED) + DUMP + frame(_frames.DONE):
        queue.buffer.append(byte)
        queue.parse()

    assert queue.started is not None
    assert queue.started.question == 63
    assert queue.answered
    assert queue.stacks == DUMP + DUMP
    assert queue.clean


def test_a_frame_in_the_middle_of_text(queue: ReportQueue) -> None:
    """A thread may write a frame while another one writes stacks."""
    queue.buffer += DUMP[:30] + frame(_frames.ANSWERED) + DUMP[30:] + frame(_frames.DONE)
    queue.parse()

    assert queue.stacks == DUMP
    assert queue.clean


def test_text_without_end(queue: ReportQueue) -> None:
    """What is kept of the text has a limit."""
    for _ in range(5):
        queue.buffer += DUMP + b"x" * (1 << 20)
        queue.parse()

    assert len(queue.stacks) == 1 << 20
    assert queue.corrupt is None


def test_other_text_is_no_report(queue: ReportQueue) -> None:
    """Text that is not in the words of faulthandler makes the rank a failure."""
    queue.buffer += b"Currently nothing happens at all"
    queue.parse()

    assert queue.corrupt is not None


# --------------------------------------------------------------------------------------- the note


def fate(index: int, stack: str | None, *, answered: bool | None = True) -> Fate:
    return Fate(index=index, pid=1, stack=stack, answered=answered)


def test_the_main_thread_is_shown() -> None:
    """Of several threads the main one is shown, which comes last."""
    note = _stacks.describe_stacks([fate(3, DUMP.decode())])

    assert note == (
        "Where the other ranks were, the innermost call first:\n"
        "  rank 3:\n"
        '    File "b.py", line 2 in g\n'
        '    File "c.py", line 3 in h'
    )


def test_no_stack_no_note() -> None:
    """Ranks that were not asked, or had nothing to tell, are not in the note."""
    assert _stacks.describe_stacks([fate(0, None), fate(1, None, answered=None)]) is None
    assert _stacks.describe_crash(fate(0, DUMP.decode())) is None


def test_the_stuck_come_first() -> None:
    """What is shown first is what is stuck; of many places only the first are shown."""
    fates = [
        fate(index, DUMP.decode().replace("b.py", f"{index}.py"), answered=index != 8)
        for index in range(9)
    ]
    lines = (_stacks.describe_stacks(fates) or "").splitlines()

    assert lines[1].startswith("  rank 8: stuck in C code")
    assert lines[-1] == "  ranks 4-7: elsewhere, see .stacks of this exception"


def test_text_that_is_cut_anywhere() -> None:
    """Whatever part of the text has arrived, the note can be made."""
    for title in (b"", b"Fatal Python error: Aborted\n\n", b"Windows fatal exception: code 1\n\n"):
        data = title + DUMP
        for end in range(len(data)):
            asked, crash = _stacks.split_crash(data[:end])
            _stacks.describe_stacks([fate(0, asked)])
            _stacks.describe_crash(fate(0, crash))
