"""One payload for all ranks: pickled once, sealed, given back; and what cannot be sent."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import conftest
import flamespawn
import jobs
import payloads
from flamespawn import _native, _payload, _platform

F_GET_SEALS = 1034
ALL_SEALS = 15

LARGE = 1 << 20

needs_memfd = pytest.mark.skipif(
    conftest.ON_WINDOWS or not _platform.has_memfd(), reason="this system offers no memfd_create"
)

# ---------------------------------------------------------------------------------- pickling once


@pytest.mark.parametrize("nprocs", [1, 4])
def test_arguments_are_pickled_once(nprocs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ranks there are, an argument is pickled once, and not in the ranks."""
    monkeypatch.setattr(payloads.Counted, "count", 0)

    flamespawn.spawn(payloads.check_number, (payloads.Counted(), 1), nprocs)

    assert payloads.Counted.count == 1


@pytest.mark.parametrize("with_torch", [True, False])
def test_what_loading_consumes(with_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch shares such that a load takes it away is pickled for each rank."""
    if with_torch:
        monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", types.ModuleType("x")))
    else:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(payloads.Consumed, "pickled", 0)
    args = payloads.Consumed(), [1, 2, 3, 4] if with_torch else [1] * 4

    payload = _payload.Payload({"args": args}, count=4)
    assert len(payload.parts) == (4 if with_torch else 1)
    payload.close()

    payloads.Consumed.pickled = 0
    flamespawn.spawn(payloads.check_own_load, args, 4)


def test_word_at_the_edge_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word is found wherever it is in the pickle, and nowhere else."""
    monkeypatch.setattr(_payload, "_CHUNK", 64)
    for before in range(130):
        payload = _payload.Payload({"args": (b"." * before, b"rebuild_event", b"." * 99)})
        assert payload.mentions([b"no such word", b"rebuild_event"])
        assert not payload.mentions([b"rebuild_events", b"Rebuild_event"])
        payload.close()


# ----------------------------------------------------------------------------------------- the file


@needs_memfd
def test_the_file_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When ranks start, nobody can change the payload, its size or its seals any more."""
    import fcntl

    seals = []
    seal = _payload.seal

    def seal_and_look(fd: int) -> None:
        seal(fd)
        seals.append(fcntl.fcntl(fd, F_GET_SEALS))

    monkeypatch.setattr(_payload, "seal", seal_and_look)

    flamespawn.spawn(jobs.nothing, nprocs=2)

    assert seals == [ALL_SEALS]


@needs_memfd
def test_ranks_cannot_change_the_file() -> None:
    """A rank that opens the file that it has mapped cannot write to it or change its size."""
    handed = payloads.Handed(bytearray(payloads.pattern(LARGE)))
    # Python 3.13 and later keep no descriptor that could be opened again.
    files = 1 if sys.version_info < (3, 13) else 0

    flamespawn.spawn(payloads.attack, (handed, files), 2)


KINDS: dict[str, tuple[Any, bool]] = {
    "small": (b"x" * 100, False),
    "large in the pickle": (b"x" * LARGE, False),
    "small buffer": (payloads.Handed(bytearray(100)), False),
    "large buffer": (payloads.Handed(bytearray(LARGE)), True),
}


@needs_memfd
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_rank_keeps(kind: str) -> None:
    """A rank keeps the payload for large buffers only, and hands no descriptor on to others."""
    value, mapped = KINDS[kind]
    here, there = multiprocessing.Pipe()

    with here, there:
        flamespawn.spawn(payloads.check_traces, (mapped, value, there), 2)


@pytest.mark.parametrize("join", [True, False])
@pytest.mark.posix("a mapped file keeps its name on Windows")
def test_the_launcher_gives_the_payload_back(join: bool) -> None:
    """Once the ranks have been started, the launcher has nothing of the payload."""
    data = bytearray(LARGE)

    context = flamespawn.spawn(
        jobs.wait_forever if not join else jobs.nothing, (payloads.Handed(data),), 2, join=join
    )

    check_given_back(data)
    if context is not None:
        context.kill()
        with pytest.raises(flamespawn.ProcessExitedException):
            context.join()


def check_given_back(data: bytearray) -> None:
    assert payloads.payload_fds() == []
    assert payloads.payload_maps() == []
    # A buffer that is still in use cannot be resized.
    data.append(0)


@pytest.mark.parametrize("error", [OSError(5, "the disk is gone"), KeyboardInterrupt()])
def test_errors_of_an_argument(error: BaseException) -> None:
    """What the method of an argument raises comes out as it is, and all is given back by then."""
    data = bytearray(LARGE)
    before = conftest.descriptors()

    with pytest.raises(type(error)) as caught:
        flamespawn.spawn(
            jobs.nothing, (payloads.Handed(data), payloads.RaisesWhenPickled(error)), 2
        )

    assert caught.value is error
    assert error.__cause__ is None
    assert conftest.descriptors() == before
    check_given_back(data)


def test_launch_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no rank can be started, the payload is given back."""
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", "/nonexistent/python")
    data = bytearray(LARGE)

    with pytest.raises(FileNotFoundError) as caught:
        flamespawn.spawn(jobs.nothing, (payloads.Handed(data),), 2)

    # The error and its frames still live.
    check_given_back(data)
    assert caught.value.filename == "/nonexistent/python"


@pytest.mark.posix("RLIMIT_FSIZE")
def test_no_room(run_launcher: Callable[..., Any]) -> None:
    """When the payload does not fit, the error of the system is raised and all is given back."""
    launcher = run_launcher(NO_ROOM)

    out, err = launcher.communicate(timeout=conftest.WATCHDOG_SECONDS)

    assert (out, err) == ("[Errno 27] File too large\n", "")


NO_ROOM = """
import resource, signal
import conftest, flamespawn, jobs, payloads

if __name__ == "__main__":
    before = conftest.descriptors()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    data = bytearray(1 << 22)
    for value in (data, payloads.Handed(data)):
        try:
            flamespawn.spawn(jobs.nothing, (value,), 2)
        except OSError as error:
            message = error
    data.append(0)
    assert conftest.descriptors() == before
    print(message)
"""


# ------------------------------------------------------------------------------------- unpicklable


def local_function() -> Any:
    def hook() -> None: ...

    return hook


UNPICKLABLE: dict[str, tuple[Any, Any, str]] = {
    "local function": (
        jobs.nothing,
        (0, {"model": payloads.Holder(hook=local_function())}),
        "args[1]['model'].hook: cannot pickle local function 'local_function.<locals>.hook'",
    ),
    "lambda": (lambda rank: None, (), f"fn: cannot pickle lambda '{__name__}.<lambda>'"),
    "lock": (
        jobs.nothing,
        ([1, threading.Lock()],),
        "args[0][1]: cannot pickle '_thread.lock' object",
    ),
    "memory with gaps": (
        jobs.nothing,
        (payloads.Handed(memoryview(bytearray(9))[::2]),),
        "args[0].__reduce__()[1][0]: "
        "PickleBuffer can not be pickled when pointing to a non-contiguous buffer",
    ),
}


@pytest.mark.parametrize("case", UNPICKLABLE)
def test_unpicklable_arguments(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be pickled is named with its place; nothing is started and all is given back."""
    monkeypatch.setattr(_native, "launch", None)
    fn, args, message = UNPICKLABLE[case]
    data = bytearray(LARGE)
    before = conftest.descriptors()

    with pytest.raises(TypeError) as caught:
        flamespawn.spawn(fn, (*args, payloads.Handed(data)), 2)

    assert str(caught.value) == message
    assert isinstance(caught.value.__cause__, Exception)
    assert conftest.descriptors() == before
    check_given_back(data)


def test_unpicklable_process() -> None:
    """A process object is refused in the same words as ranks are."""
    process = flamespawn.get_context().Process(target=jobs.nothing, args=(0, [threading.Lock()]))

    with pytest.raises(TypeError, match=r"^args\[1\]\[0\]: cannot pickle '_thread.lock' object$"):
        process.start()


# ------------------------------------------------------------------------------ path and arguments


class Text(str):
    __slots__ = ()


def test_odd_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks have the texts of `sys.path`; what no import looks at does not get in their way."""
    odd = [Path("/a"), None, 5, b"/b", Text("/c"), [threading.Lock()], "\udc80"]
    texts = [*sys.path, "/c", "\udc80"]
    monkeypatch.setattr(sys, "path", [*sys.path, *odd])

    flamespawn.spawn(payloads.check_sys, ("path", texts), 2)


@pytest.mark.parametrize(
    "argv", [[Path("/a"), Text("-v"), 5, None, "\udc80"], ["a", payloads.Colour.RED], []]
)
def test_odd_arguments(argv: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks have the launcher's `sys.argv`, whatever is in it."""
    monkeypatch.setattr(sys, "argv", argv)

    flamespawn.spawn(payloads.check_sys, ("argv", argv), 2)


def test_arguments_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `sys.argv` that cannot be pickled is an error, and all is given back."""
    monkeypatch.setattr(sys, "argv", [threading.Lock()])
    data = bytearray(LARGE)

    with pytest.raises(TypeError) as caught:
        flamespawn.spawn(jobs.nothing, (payloads.Handed(data),), nprocs=2)

    check_given_back(data)
    assert "lock" in str(caught.value)
