"""How a rank of `spawn` ends: it does all that an interpreter does, but is not taken apart."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

import flamespawn
import leaving
import probes

# Stands behind what each process has printed, on stdout and on stderr.
MARK = r"\n-- its end: (.*)\n"
LAUNCHER = f"""{probes.IMPORT}
import contextlib, json, multiprocessing, os, leaving

def outcome(way, fn, full_exit):
    if way == "spawn":
        context = flamespawn.spawn(fn, join=False, full_exit=full_exit)
        try:
            context.join()
        except flamespawn.ProcessException as error:
            return getattr(error, "error_type", str(error)), context.processes[0].exitcode
        return None, context.processes[0].exitcode
    other = way == "multiprocessing"
    context = multiprocessing.get_context("spawn") if other else flamespawn.get_context()
    process = context.Process(target=fn, args=(0,))
    process.start()
    process.join()
    return None, process.exitcode

if __name__ == "__main__":
    name, full_exit, *ways = sys.argv[1:]
    for way in ways:
        end = outcome(way, getattr(leaving, name), full_exit == "True")
        for fd in (1, 2):
            with contextlib.suppress(OSError):
                os.write(fd, f"\\n-- its end: {{json.dumps(end)}}\\n".encode())
"""
WAYS = ("multiprocessing", "get_context", "spawn")
OURS = WAYS[1:]


class End(NamedTuple):
    """What was printed, and what the launcher says."""

    out: list[str]
    err: str
    raised: str | None = None
    exit_code: int = 0


Leave = Callable[..., list[End]]


@pytest.fixture
def leave(run_launcher: Callable[..., subprocess.Popen[str]]) -> Leave:
    """Let new processes run a function of `leaving`, and return how they have ended."""

    def run(
        name: str,
        ways: tuple[str, ...] = WAYS,
        *,
        full_exit: bool = False,
        prefix: tuple[str, ...] = (),
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> list[End]:
        # Unless it is empty, the variable would flush all that is printed at once.
        env = {"PYTHONUNBUFFERED": "", **env}
        launcher = run_launcher(LAUNCHER, name, full_exit, *ways, prefix=prefix, env=env)
        out, err = launcher.communicate(timeout=probes.SECONDS)
        assert launcher.returncode == 0, err
        *errs, _ = re.split(MARK, err)
        outs = re.split(MARK, out)[:-1:2] or [""] * len(ways)
        return [
            End(out.splitlines(), err.rstrip("\n"), *json.loads(end))
            for out, err, end in zip(outs, errs[::2], errs[1::2], strict=True)
        ]

    return run


# ------------------------------------------------------------------------------------ in order

PRINTED = {
    "prints": ["out"],
    "registers_handlers": ["fn", "second", "first"],
    "has_threads": ["fn", "thread", "handler"],
    "has_a_busy_daemon_thread": ["fn"],
    "uses_the_c_library": ["puts", "no newline"],
    "has_a_log": ["logged"],
    "replaces_stdout": ["before"],
    "closes_stdout": ["before"],
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_done_at_the_end(name: str, leave: Leave) -> None:
    """Threads are waited for, handlers run in order, all streams are flushed; it is a success."""
    expected = End(PRINTED[name], "err" if name == "prints" else "")

    assert leave(name) == [expected] * 3


def test_finalizers_have_the_order_of_multiprocessing(leave: Leave) -> None:
    """Those of multiprocessing come first, and from CPython 3.13 on with the exit handlers."""
    first = sys.version_info < (3, 13)
    expected = ["high", "low"] * first + ["finalized", "handler"] + ["high", "low"] * (not first)

    assert leave("has_finalizers") == [End(expected, "")] * 3


def test_children_are_ended(leave: Leave) -> None:
    """What a rank has started with multiprocessing is waited for or, if it is a daemon, ended."""
    for end in leave("has_children"):
        assert end == End(end.out, "")
        assert sorted(end.out) == ["child", "fn"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("raises_in_a_handler", "ValueError: in a handler"), ("exits_in_a_handler", "SystemExit: 3")],
)
def test_a_handler_that_raises(name: str, message: str, leave: Leave) -> None:
    """The traceback is printed, the other handlers run, and it makes no difference."""
    for end in leave(name):
        assert end == End(["third", "first"], end.err)
        assert end.err.endswith(message)


def test_streams_of_the_user(leave: Leave) -> None:
    """A stream in the place of stdout may lack what it does not need, or be gone."""
    for end in leave("replaces_stdout_by_little"):
        assert [line for line in end.out if line != "flushed"] == ["little", "before"]
        assert end == End(end.out, "")
    assert leave("removes_streams", OURS) == [End(["before"], "")] * 2


FATAL = {
    "leaves_in_a_handler": (3, "process 0 terminated with exit code 3"),
    "leaves_in_a_handler_with_0": (0, "process 0 terminated with exit code 0"),
    "dies_in_a_handler": (-9, "process 0 terminated with signal SIGKILL"),
}


@pytest.mark.parametrize(
    "name",
    [
        "leaves_in_a_handler",
        "leaves_in_a_handler_with_0",
        pytest.param("dies_in_a_handler", marks=pytest.mark.posix("SIGKILL")),
    ],
)
def test_a_death_on_the_way_out(name: str, leave: Leave) -> None:
    """A rank that ends in an exit handler has failed, even with exit code 0."""
    code, message = FATAL[name]

    assert leave(name) == [*[End([], "", None, code)] * 2, End([], "", message, code)]


def test_a_failure_is_followed_by_the_same(leave: Leave) -> None:
    """Threads are waited for and handlers run after an exception, too."""
    for end in leave("raises_with_handlers"):
        assert end == End(["thread", "handler"], end.err, end.raised, 1)
    assert (end.err, end.raised) == ("", "ValueError")


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="the interpreter itself prints what interrupts this wait"
)
@pytest.mark.posix("signals that interrupt the wait for a thread")
def test_an_exit_by_a_signal_handler_while_it_ends(leave: Leave) -> None:
    """sys.exit() in a signal handler counts for as long as a process waits for its threads."""
    *others, rank = leave("exits_on_a_signal_later")

    assert others == [End(["handler"], "", None, 5)] * 2
    assert rank == End(["handler"], "", "process 0 terminated with exit code 5", 5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "is_interrupted_later",
            marks=pytest.mark.posix("signals that interrupt the wait for a thread"),
        ),
        "is_interrupted_in_a_handler",
    ],
)
def test_ctrl_c_while_a_rank_ends(name: str, leave: Leave) -> None:
    """A rank that is interrupted after its function reports that, and prints nothing."""
    (end,) = leave(name, ("spawn",))

    assert end == End(["handler"], "", "KeyboardInterrupt", 130)


# ------------------------------------------------------------------------------ taking it apart


def test_a_rank_is_not_taken_apart(leave: Leave) -> None:
    """Unlike with multiprocessing, what a module still holds is not deleted."""
    theirs, *ours = leave("keeps_an_object")

    assert theirs == End(["fn", "deleted"], "")
    assert ours == [End(["fn"], "")] * 2


@pytest.mark.parametrize(
    "name", ["registers_handlers", "has_threads", "uses_the_c_library", "has_a_log"]
)
def test_full_exit(name: str, leave: Leave) -> None:
    """With full_exit=True a rank is taken apart, and nothing happens twice."""
    assert leave("keeps_an_object", ("spawn",), full_exit=True) == [End(["fn", "deleted"], "")]
    assert leave(name, ("spawn",), full_exit=True) == [End(PRINTED[name], "")]


@pytest.mark.parametrize(("value", "taken_apart"), [("1", True), ("0", False), ("", False)])
def test_full_exit_by_the_environment(value: str, taken_apart: bool, leave: Leave) -> None:
    """FLAMESPAWN_FULL_EXIT=1 does the same for all processes of flamespawn."""
    ends = leave("keeps_an_object", OURS, env={"FLAMESPAWN_FULL_EXIT": value})

    assert ends == [End(["fn", "deleted"] if taken_apart else ["fn"], "")] * 2


def test_a_failure_with_full_exit(leave: Leave) -> None:
    """The outcome of a failure is the same with full_exit=True."""
    ends = leave("raises_with_handlers", ("spawn",), full_exit=True)

    assert ends == [End(["thread", "handler"], "", "ValueError", 1)]


# ---------------------------------------------------------------------------------- what is left


@pytest.mark.parametrize("way", OURS)
def test_files_that_are_left_open(way: str, tmp_path: Path) -> None:
    """What nobody has closed is written all the same, with the end that its format needs."""
    if way == "spawn":
        flamespawn.spawn(leaving.keeps_files, (str(tmp_path),))
    else:
        process: Any = flamespawn.get_context().Process(
            target=leaving.keeps_files, args=(0, str(tmp_path))
        )
        process.start()
        process.join()

    openers = {"gzip": gzip.open, "bz2": bz2.open, "lzma": lzma.open}
    contents = {}
    for path in tmp_path.iterdir():
        with openers.get(path.stem, open)(path, "rb") as file:
            contents[path.name] = file.read()
    assert len(contents) == 9
    assert set(contents.values()) == {b"content"}


@pytest.mark.posix("pipes whose size is known")
def test_a_thread_that_is_stuck(leave: Leave) -> None:
    """A daemon thread in the middle of writing to a pipe does not keep a rank from ending."""
    assert leave("is_stuck_in_a_pipe") == [End(["fn"], "")] * 3


TO_FULL_DEVICE = ("sh", "-c", 'exec "$@" >/dev/full', "sh")


@pytest.mark.parametrize("full_exit", [False, True])
@pytest.mark.posix("/dev/full")
def test_output_that_cannot_be_written(full_exit: bool, leave: Leave) -> None:
    """A stdout that cannot be flushed makes the process fail; a rank reports it."""
    *others, rank = leave("prints", full_exit=full_exit, prefix=TO_FULL_DEVICE)

    for other in others:
        assert other.exit_code > 0
        assert "No space left" in other.err
    assert rank.raised == "OSError"
    assert rank.exit_code > 0


def test_a_queue_is_flushed(mechanism: str) -> None:
    """What a rank has put into a queue arrives, although its function has long returned."""
    queue: Any = multiprocessing.get_context("spawn").Queue()
    context = flamespawn.spawn(leaving.put_much, (queue,), nprocs=2, join=False)

    for _ in range(2):
        assert len(queue.get(timeout=probes.SECONDS)) == 1 << 20

    while not context.join():
        pass
    queue.close()
    queue.join_thread()


VALUES = [None, 0, True, 5, 256, 257, -1, 2**40, 2**70, "text", 1.5]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_exit_codes(value: object, capfd: pytest.CaptureFixture[str]) -> None:
    """sys.exit() in the function gives the exit code and the text that multiprocessing has."""
    codes, texts = [], []
    for context in (multiprocessing.get_context("spawn"), flamespawn.get_context()):
        process: Any = context.Process(target=leaving.exit_with_value, args=(0, value))
        process.start()
        process.join()
        codes.append(process.exitcode)
        texts.append(capfd.readouterr().err.strip())
        process.close()
    ranks = flamespawn.spawn(leaving.exit_with_value, (value,), join=False)
    error = None
    try:
        ranks.join()
    except flamespawn.ProcessExitedException as raised:
        error = raised.with_traceback(None)
    codes.append(ranks.processes[0].exitcode)
    texts.append(capfd.readouterr().err.strip())

    assert len(set(codes)) == 1, codes
    # With numbers beyond all limits multiprocessing trips over itself.
    assert len(set(texts[value == 2**70 :])) == 1, texts
    assert (error is not None) is (codes[0] != 0)
    if error is not None:
        assert error.exit_code == codes[0]
