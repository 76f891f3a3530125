"""The extension module: errors, closing, and what a signal does to a wait."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from collections.abc import Iterator

import pytest

from flamespawn import _native


@pytest.fixture
def process_set() -> Iterator[_native.ProcSet]:
    opened = _native.ProcSet(_native.probe())
    yield opened
    opened.close()


@pytest.mark.posix("the system's words")
def test_errors_name_the_failed_call(process_set: _native.ProcSet) -> None:
    """An OSError carries the system's code and the name of the call."""
    with pytest.raises(OSError, match=r"(epoll_ctl|kevent): Bad file descriptor") as caught:
        process_set.add(os.getpid(), sentinel=0, report=987654)

    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("pid", [0, -1, 1 << 40])
@pytest.mark.posix("the system's words")
def test_impossible_pids(process_set: _native.ProcSet, pid: int) -> None:
    """What cannot be a pid is refused."""
    with pytest.raises(OSError, match="procset_add: Invalid argument"):
        process_set.add(pid)


@pytest.mark.posix("the system's words")
def test_members_that_do_not_exist(process_set: _native.ProcSet) -> None:
    """An index without a member is an error of every call."""
    for call in (
        lambda: process_set.usage(0),
        lambda: process_set.signal(0, 0),
        lambda: process_set.read(0, bytearray(), 10),
        lambda: process_set.forget_report(0),
    ):
        with pytest.raises(OSError, match="index: Invalid argument"):
            call()


def test_closed_sets_refuse() -> None:
    """A closed set says so, and may be closed and abandoned again."""
    process_set = _native.ProcSet(0)
    assert not process_set.closed
    process_set.close()
    process_set.close()
    process_set.abandon()

    assert process_set.closed
    for call in (
        process_set.wait,
        process_set.wake,
        process_set.fileno,
        process_set.wake_fileno,
        lambda: process_set.add(1),
        lambda: process_set.usage(0),
    ):
        with pytest.raises(ValueError, match="the set is closed"):
            call()


def test_dropping_an_open_set_warns() -> None:
    """A set that was not closed is closed with a ResourceWarning."""
    process_set = _native.ProcSet(0)

    with pytest.warns(ResourceWarning, match="unclosed flamespawn._native.ProcSet"):
        del process_set
        gc.collect()


def test_a_wait_that_is_in_progress(process_set: _native.ProcSet) -> None:
    """Nobody else may wait for, or close, a set that is waited for; wake() ends the wait."""
    events: list[list[tuple[int, int, int | None]]] = []
    thread = threading.Thread(target=lambda: events.append(process_set.wait()))
    thread.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            process_set.wait(0)
        except RuntimeError as error:
            assert str(error) == "another thread is waiting for this set"
            break
    with pytest.raises(RuntimeError, match="cannot be closed while it is waited for"):
        process_set.close()
    process_set.wake()
    thread.join()

    assert events == [[(_native.WOKEN, 0, None)]]


@pytest.mark.posix("pipes of os.pipe")
def test_reading_appends(process_set: _native.ProcSet) -> None:
    """read() appends to the buffer: bytes, zero at the end, None when there is nothing yet."""
    read_end, write_end = os.pipe()
    sentinel, other = os.pipe()
    index = process_set.add(os.getpid(), sentinel=sentinel, report=read_end)
    buffer = bytearray(b"before")

    assert process_set.read(index, buffer, 100) is None
    assert buffer == b"before"
    os.write(write_end, b"more")
    assert process_set.wait(0) == [(_native.READABLE, index, None)]
    assert process_set.read(index, buffer, 3) == 3
    assert process_set.read(index, buffer, 3) == 1
    assert buffer == b"beforemore"
    os.close(write_end)
    assert process_set.read(index, buffer, 3) == 0
    process_set.forget_report(index)
    for fd in (read_end, sentinel, other):
        os.close(fd)


@pytest.mark.posix("select")
def test_the_wait_can_be_watched(process_set: _native.ProcSet) -> None:
    """fileno() is readable while wait would return at once."""
    import select

    assert select.select([process_set.fileno()], [], [], 0)[0] == []
    os.write(process_set.wake_fileno(), b"x")
    assert select.select([process_set.fileno()], [], [], 0)[0] == [process_set.fileno()]
    process_set.wait(0)
    assert select.select([process_set.fileno()], [], [], 0)[0] == []
