"""Reports: exceptions of every kind come through, and hostile bytes do no harm."""

from __future__ import annotations

import os
import platform
import queue
import struct
import traceback
from pathlib import Path
from typing import Any

import pytest

import flamespawn
import jobs
from flamespawn import _frames, _report, _report_writer
from flamespawn._queues import ReportQueue

START_METHODS = ["fork", "spawn", "forkserver"]


def failure_of(function: Any, *args: object, start_method: str = jobs.QUICK) -> Any:
    with pytest.raises(flamespawn.ProcessException) as caught:
        flamespawn.start_processes(jobs.call_in, (1, function, *args), 2, start_method=start_method)
    assert caught.value.error_index == 1
    return caught.value


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_message_of_64_megabytes(start_method: str) -> None:
    """A huge message comes through whole and blocks neither the rank nor the launcher."""
    error = failure_of(jobs.raise_long, 64 << 20, start_method=start_method)

    assert error.error_message == "x" * (64 << 20)
    assert error.msg.endswith("x" * 1000 + "\n")
    assert isinstance(error.__cause__, ValueError)


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize(
    ("function", "name", "message"),
    [
        (jobs.raise_unpicklable, "jobs.Unpicklable", "the message"),
        (jobs.raise_not_unpicklable, "jobs.NotUnpicklable", "1 and 2"),
        (jobs.raise_local_class, "jobs.raise_local_class.<locals>.LocalError", "the message"),
        (jobs.raise_evil, "jobs.Evil", "the message"),
    ],
)
def test_exceptions_that_do_not_survive_a_round_trip(
    start_method: str, function: Any, name: str, message: str
) -> None:
    """Type, message and traceback arrive as text; there is no object to be the cause."""
    error = failure_of(function, start_method=start_method)

    assert (error.error_type, error.error_message) == (name, message)
    assert error.msg.endswith(f"{name}: {message}\n")
    assert function.__name__ in error.msg
    assert error.__cause__ is None


def test_an_exception_that_comes_out_in_the_rank_only() -> None:
    """An unpickling that fails in the launcher, even by SystemExit, hides nothing."""
    error = failure_of(jobs.raise_only_in_the_rank)

    assert error.error_type == "jobs.OnlyInTheRank"
    assert error.__cause__ is None


def test_an_exception_whose_str_raises() -> None:
    """A broken __str__ is said to be one."""
    error = failure_of(jobs.raise_broken_str)

    assert error.error_type == "jobs.BrokenStr"
    assert error.error_message == "<str() of the exception raised RuntimeError>"
    assert "jobs.BrokenStr" in error.msg


def test_notes_and_causes_are_in_the_text() -> None:
    """The traceback shows what the exception came from and what was noted on it."""
    error = failure_of(jobs.raise_with_note_and_cause)

    assert "ValueError: the cause" in error.msg
    assert "direct cause of the following exception" in error.msg
    assert error.msg.endswith("RuntimeError: the effect\nthe note\n")
    assert error.__cause__.__notes__ == ["the note"]


def test_groups_are_in_the_text() -> None:
    """Each exception of a group is shown, and the group is the cause."""
    error = failure_of(jobs.raise_group)

    assert "ValueError: first" in error.msg
    assert "TypeError: second" in error.msg
    assert isinstance(error.__cause__, ExceptionGroup)


def test_text_that_is_not_unicode() -> None:
    """Lone surrogates, as in undecodable file names, come through escaped."""
    error = failure_of(jobs.raise_value_error, "name\udcff")

    assert error.error_message == "name\\udcff"


def test_a_rank_that_closed_its_pipe() -> None:
    """A rank that cannot report shows its traceback on stderr and fails by its exit code."""
    error = failure_of(jobs.close_pipe_and_raise)

    assert isinstance(error, flamespawn.ProcessExitedException)
    assert error.exit_code == 1


def test_a_rank_that_closed_its_pipe_cannot_succeed() -> None:
    """Nobody said that it was done."""
    error = failure_of(jobs.close_pipe_and_return)

    assert isinstance(error, flamespawn.ProcessExitedException)


def test_a_rank_that_reuses_the_descriptor_of_its_pipe(tmp_path: Path) -> None:
    """A report is never written into a file that took the place of the pipe."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    error = failure_of(jobs.reopen_pipe_as, str(precious))

    assert isinstance(error, flamespawn.ProcessExitedException)
    assert precious.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"rubbish" * 1000,
        _frames.MAGIC + b"\xff" * 200,
        _frames.MAGIC + b"\3" + b"\xff" * 100,
    ],
    ids=["short", "rubbish", "kind", "size"],
)
def test_rubbish_in_the_pipe(data: bytes) -> None:
    """Bytes that are no report make the rank a failure, whatever its exit code."""
    error = failure_of(jobs.write_rubbish, data)

    assert isinstance(error, flamespawn.ProcessExitedException)


# --------------------------------------------------------------------------------------- frames


def frames(rank: int = 7) -> bytes:
    """One report of each kind, as a rank sends them."""
    read_end, write_end = os.pipe()
    try:
        writer = _report_writer.ReportWriter(write_end, rank)
        writer.started()
        writer.done()
        writer.exiting(3, "why")
        writer.failed(ValueError("wrong"))
        return os.read(read_end, 1 << 16)
    finally:
        os.close(read_end)
        os.close(write_end)


def decode_all(data: bytes) -> list[_report.Report]:
    reports = []
    position = 0
    while decoded := _report.decode(bytearray(data), position):
        report, position = decoded
        reports.append(report)
    return reports


def test_reports_survive_the_pipe() -> None:
    """What is decoded is what was written, with rank, pid and a time stamp."""
    reports = decode_all(frames())
    started, done, exiting, failing, failed = reports

    assert isinstance(started, _report.Started)
    assert isinstance(done, _report.Done)
    assert isinstance(exiting, _report.Exiting)
    assert (exiting.code, exiting.message) == (3, "why")
    assert isinstance(failed, _report.Failed)
    assert (failed.error_type, failed.message) == ("ValueError", "wrong")
    assert isinstance(failed.load_exception(), ValueError)
    assert failed.host.lower() == platform.node().lower()
    assert {report.rank for report in reports} == {7}
    assert {report.pid for report in reports} == {os.getpid()}
    assert started.time_ns <= done.time_ns <= exiting.time_ns <= failing.time_ns
    assert isinstance(failing, _report.Failing)
    assert failing.time_ns == failed.time_ns


def test_incomplete_reports_are_waited_for() -> None:
    """However a stream is cut, nothing is decoded early and nothing is lost."""
    data = frames()
    expected = decode_all(data)

    for cut in range(len(data)):
        reports = decode_all(data[:cut])
        assert reports == expected[: len(reports)]
        assert len(reports) < 5


def test_damaged_reports_are_refused_or_harmless() -> None:
    """A changed byte gives another report or an error by name, and never anything else."""
    data = frames()

    for position in range(len(data)):
        for value in (0, 0x7F, 0xFF):
            damaged = data[:position] + bytes([value]) + data[position + 1 :]
            try:
                decode_all(damaged)
            except _report.CorruptReportError as error:
                assert str(error)


def test_a_size_over_the_limit_is_refused_before_it_is_read() -> None:
    """A header that announces more than a report may have is an error at once."""
    header = _frames.pack_header(3, 0, 1, 0, _report.MAX_BODY + 1)

    with pytest.raises(_report.CorruptReportError, match="over the limit"):
        _report.decode(bytearray(header), 0)


def test_a_failure_with_the_wrong_number_of_fields() -> None:
    """Fields are counted and measured."""
    for body, message in [
        (b"", "5 fields, not 0"),
        (struct.pack("<Q", 9), "longer than its frame"),
        (b"abc", "cut off"),
    ]:
        header = _frames.pack_header(3, 0, 1, 0, len(body))
        with pytest.raises(_report.CorruptReportError, match=message):
            _report.decode(bytearray(header + body), 0)


def test_decoding_does_not_unpickle() -> None:
    """Only load_exception looks into the pickle, and it takes exceptions only."""
    report = _report.Failed(
        rank=0,
        pid=1,
        time_ns=0,
        error_type="",
        message="",
        traceback="",
        pickled=b"cos\ngetpid\n(tR.",
    )

    assert report.load_exception() is None


def test_the_error_queue_is_a_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """error_queues show the traceback as often as one asks, and never block."""
    context = flamespawn.start_processes(
        jobs.call_in, (0, jobs.raise_value_error), 2, join=False, start_method=jobs.QUICK
    )
    with pytest.raises(flamespawn.ProcessRaisedException) as caught:
        context.join()

    first, second = context.error_queues
    assert isinstance(first, ReportQueue)
    assert not first.empty()
    assert first.get() == first.get() == caught.value.error_traceback
    assert second.empty()
    with pytest.raises(queue.Empty):
        second.get()


def test_too_long_texts_are_cut_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text over the limit keeps its beginning and its end, and says what is missing."""
    monkeypatch.setattr(_report_writer, "MAX_FIELD", 100)
    error = ValueError("a" * 200 + "b" * 200)

    *_, failed = decode_all(failed_frame(error))

    assert isinstance(failed, _report.Failed)
    assert failed.message is not None
    assert failed.message.startswith("a" * 50 + "\n[... 300 bytes left out ...]\n")
    assert failed.message.endswith("b" * 50)
    assert failed.pickled == b""
    assert traceback.format_exception(error)


def failed_frame(error: BaseException) -> bytes:
    read_end, write_end = os.pipe()
    try:
        _report_writer.ReportWriter(write_end, 0).failed(error)
        return os.read(read_end, 1 << 16)
    finally:
        os.close(read_end)
        os.close(write_end)
