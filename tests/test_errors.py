"""The exceptions as values: fields, pickling, copies, and the classes they belong to."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import flame.pytorch.utils.spawn as facade
import flamespawn
from flamespawn import Fate, ProcessExitedException, ProcessRaisedException
from flamespawn._errors import describe_fates

RAISED = ProcessRaisedException(
    "the message", 3, 42, error_type="ValueError", error_message="x", error_traceback="tb"
)
EXITED = ProcessExitedException("process 1 terminated", 1, 43, -9, "SIGKILL")


def fields(error: Any) -> dict[str, Any]:
    names = (
        "msg",
        "error_index",
        "pid",
        "error_pid",
        "fates",
        "__notes__",
        "exit_code",
        "signal_name",
        "error_type",
        "error_message",
        "error_traceback",
    )
    return {name: getattr(error, name, None) for name in names}


@pytest.mark.parametrize("error", [RAISED, EXITED, flamespawn.ProcessException("m", 0, 1)])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_all_fields(error: Any, protocol: int) -> None:
    """An exception that went through pickle is the same in every field."""
    error = copy.copy(error)
    error.fates = (Fate(index=0, pid=1, exit_code=0), Fate(index=1, pid=2, signal_name="SIGKILL"))
    error.add_note("a note")

    back = pickle.loads(pickle.dumps(error, protocol))

    assert type(back) is type(error)
    assert fields(back) == fields(error)
    assert back.args == error.args == (error.msg,)


def test_positional_parameters() -> None:
    """The constructors take what torch's take, in the same order."""
    assert flamespawn.ProcessException("m", 1, 2).error_pid == 2
    assert ProcessExitedException("m", 1, 2, 3).signal_name is None
    assert (EXITED.exit_code, EXITED.signal_name) == (-9, "SIGKILL")
    assert (RAISED.error_index, RAISED.pid) == (3, 42)


def test_hierarchy() -> None:
    """Both kinds of failure are caught by their base class."""
    assert issubclass(ProcessRaisedException, flamespawn.ProcessException)
    assert issubclass(ProcessExitedException, flamespawn.ProcessException)


def test_the_flame_facade_is_the_same() -> None:
    """flame.pytorch.utils.spawn offers the very objects of flamespawn, of what it documents."""
    for name in facade.__all__:
        assert getattr(facade, name) is getattr(flamespawn, name)
    assert set(flamespawn.__all__) - set(facade.__all__) == {"Fate", "get_context", "install"}


def test_public_names_say_where_they_are_from() -> None:
    """Tracebacks show the public names."""
    for name in flamespawn.__all__:
        if isinstance(getattr(flamespawn, name), type) and name != "ProcessContext":
            assert getattr(flamespawn, name).__module__ == "flamespawn"


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        (Fate(index=0, pid=1, exit_code=0, done=True), "done"),
        (Fate(index=0, pid=1, done=True), "done"),
        (Fate(index=0, pid=1, exit_code=0), "exited with code 0"),
        (Fate(index=0, pid=1, exit_code=3), "exited with code 3"),
        (Fate(index=0, pid=1, error="E", exit_code=1), "raised E"),
        (
            Fate(index=0, pid=1, signal_name="SIGSEGV", core_dumped=True),
            "ended by signal SIGSEGV, core dumped",
        ),
        (
            Fate(index=0, pid=1, signal_name="SIGTERM", stopped=True),
            "ended by signal SIGTERM, stopped by the launcher",
        ),
        (Fate(index=0, pid=1), "ended, reaped elsewhere, exit status unknown"),
        (Fate(index=0, pid=1, ended=False), "could not be ended and was abandoned"),
    ],
)
def test_fates_in_words(fate: Fate, words: str) -> None:
    """Each fate has its own words."""
    assert fate.describe() == words


def test_many_ranks_make_few_lines() -> None:
    """Ranks that share a fate share a line."""
    fates = tuple(
        Fate(index=index, pid=index + 1, exit_code=7 if index in {1, 5} else 0)
        for index in range(1000)
    )

    assert describe_fates(fates) == (
        "How each rank ended:\n"
        "  ranks 0, 2-4, 6-999: exited with code 0\n"
        "  ranks 1, 5: exited with code 7"
    )
