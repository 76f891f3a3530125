"""
The report decoder against hostile bytes.

A rank may write anything into its pipe. FLAMESPAWN_FUZZ=N tries N random inputs for each claim; the
inputs of the ordinary run are always the same.
"""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from flamespawn import _frames, _native, _report
from flamespawn._queues import ReportQueue

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

EXAMPLES = int(os.environ.get("FLAMESPAWN_FUZZ", "0"))
# What code is executed by, as the interpreter tells it to audit hooks.
EXECUTIONS = {"exec", "compile", "import", "open", "marshal.loads", "pickle.find_class"}

fuzzed: Callable = hypothesis.settings(
    max_examples=EXAMPLES or 150,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(autouse=True)
def unfrozen(nothing_left_behind: None) -> None:
    """Hypothesis asks who refers to its objects, which nobody tells of those that are frozen."""
    gc.unfreeze()


class Bomb:
    """Would say so if it were unpickled."""

    def __reduce__(self) -> tuple:
        return exec, ("raise AssertionError('executed')",)


BOMB = pickle.dumps(Bomb())


def integers(size: int) -> st.SearchStrategy[int]:
    """Return numbers of any size that fits, near the edges more often."""
    limit = 1 << (8 * size - 1)
    edges = [-limit, -1, 0, 1, 8, 32, _report.MAX_BODY, _report.MAX_BODY + 1, limit - 1]
    return st.sampled_from([edge for edge in edges if -limit <= edge < limit]) | st.integers(
        -limit, limit - 1
    )


def headers(kind: st.SearchStrategy[int], size: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return st.builds(_frames.pack_header, kind, integers(4), integers(4), integers(8), size)


def fields(count: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    """Return bodies of fields, each with its true length, or now and then with a false one."""
    texts = st.binary(max_size=40) | st.just(BOMB)
    lengths = st.none() | integers(8)
    field = st.builds(
        lambda text, length: _frames.pack(len(text) if length is None else length, 8) + text,
        texts,
        st.one_of(st.none(), st.none(), lengths),
    )
    return count.flatmap(lambda n: st.lists(field, min_size=n, max_size=n)).map(b"".join)


def frame(kind: int, body: bytes) -> bytes:
    return _frames.pack_header(kind, 1, 2, 3, len(body)) + body


FRAMES = st.one_of(
    st.sampled_from([_frames.STARTED, _frames.RETURNED, _frames.DONE]).map(
        lambda kind: frame(kind, b"")
    ),
    st.binary(max_size=20).map(lambda body: frame(_frames.EXITING, body)),
    fields(st.just(5) | st.integers(0, 8)).map(lambda body: frame(_frames.FAILED, body)),
    headers(st.integers(-1, 6) | integers(4), integers(8)),
)


@st.composite
def streams(draw: Callable) -> bytes:
    """Draw what a rank may write: frames, frames that were damaged, and rubbish."""
    parts = draw(st.lists(st.one_of(FRAMES, FRAMES, st.binary(max_size=50)), max_size=6))
    data = bytearray(b"".join(parts))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@contextmanager
def report_queue() -> Iterator[ReportQueue]:
    read_end, write_end = _native.open_pipe()
    queue = ReportQueue(read_end)
    try:
        yield queue
    finally:
        write_end.close()
        queue.close()


def outcome(data: bytes, cuts: list[int]) -> tuple:
    """Return what the launcher makes of a stream that arrives in pieces."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    with report_queue() as queue:
        for begin, end in itertools.pairwise(edges):
            if queue.final is None and queue.corrupt is None and begin < end:
                queue.buffer += data[begin:end]
                queue.parse()
        return queue.started, queue.final, queue.corrupt, queue.clean, bytes(queue.buffer)


class Watch:
    """An audit hook, which cannot be taken out again, that listens now and then."""

    def __init__(self) -> None:
        self.active = False
        self.events: list[str] = []
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: object) -> None:
        if self.active and event in EXECUTIONS:
            self.events.append(event)


@fuzzed
@hypothesis.given(streams() | st.binary(max_size=200))
def test_bytes_are_reports_or_corrupt(data: bytes) -> None:
    """The decoder gives reports or CorruptReportError, and never anything else."""
    buffer = bytearray(data)
    position = 0
    try:
        while decoded := _report.decode(buffer, position):
            report, end = decoded
            assert isinstance(report, _report.Report)
            assert position + _frames.HEADER_SIZE <= end <= len(data)
            position = end
    except _report.CorruptReportError as error:
        assert str(error)
    assert buffer == data
    buffer.clear()  # nobody holds it any more


@fuzzed
@hypothesis.given(streams(), st.lists(st.integers(0, 1 << 16), max_size=8))
def test_any_splitting_gives_the_same(data: bytes, cuts: list[int]) -> None:
    """Wherever the pipe cuts a stream, the launcher makes the same of it."""
    assert outcome(data, cuts) == outcome(data, [])


@fuzzed
@hypothesis.given(st.binary(max_size=60), st.integers(0, 200))
def test_what_follows_the_end_is_not_looked_at(data: bytes, cut: int) -> None:
    """After the final report nothing that comes makes a difference."""
    done = frame(_frames.STARTED, b"") + frame(_frames.DONE, b"")

    assert outcome(done + data, [cut])[:4] == outcome(done, [])[:4]


def test_nothing_in_a_stream_is_executed() -> None:
    """Whatever is written into the pipe, decoding it runs no code of it; `load_exception` may."""
    watch = Watch()

    @fuzzed
    @hypothesis.given(streams())
    def decode(data: bytes) -> None:
        with report_queue() as queue:
            queue.buffer += data
            watch.active = True
            queue.parse()
            watch.active = False

    decode()
    texts = (b"a", b"b", b"c", b"d", BOMB)
    body = b"".join(_frames.pack(len(text), 8) + text for text in texts)
    watch.active = True
    _, final, corrupt, clean, _ = outcome(frame(_frames.FAILED, body), [])
    watch.active = False

    assert watch.events == []
    assert (final.pickled, corrupt, clean) == (BOMB, None, False)
    watch.active = True
    assert final.load_exception() is None
    watch.active = False
    assert "exec" in watch.events


def test_an_endless_stream_is_not_kept() -> None:
    """A rank that says the same for ever does not fill the launcher's memory with it."""
    chunk = frame(_frames.RETURNED, b"") * 1000 + frame(_frames.RETURNED, b"")[:20]
    rest = frame(_frames.RETURNED, b"")[20:]
    with report_queue() as queue:
        for _ in range(30):
            queue.buffer += chunk
            queue.parse()
            assert len(queue.buffer) == 20
            queue.buffer += rest
            queue.parse()
            assert len(queue.buffer) == 0

    assert queue.corrupt is None


@pytest.mark.parametrize("size", [1, 1000, _report.MAX_BODY])
def test_what_is_announced_is_not_allocated(size: int) -> None:
    """Memory is taken for what has arrived, not for what a header or a length promises."""
    header = _frames.pack_header(_frames.FAILED, 0, 1, 2, size)
    lengths = _frames.pack(size, 8) * 3
    tracemalloc.start()
    try:
        outcome(header + lengths, [40])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


def test_many_fields_are_refused_early() -> None:
    """A body full of empty fields takes neither time nor memory."""
    body = bytes(8) * 500_000
    tracemalloc.start()
    try:
        _, final, corrupt, *_ = outcome(frame(_frames.FAILED, body), [])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert final is None
    assert "more than 5 fields" in corrupt
    assert peak < 6 * len(body)
