"""
Start N processes, wait for all of them without polling, and raise the first failure.

In a rank names are imported when they are first used: it needs much less than a launcher does, and
every rank pays for what it imports.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flamespawn._context import ProcessContext
    from flamespawn._errors import (
        Fate,
        ProcessException,
        ProcessExitedException,
        ProcessRaisedException,
    )
    from flamespawn._mp_context import get_context, install
    from flamespawn._spawn import spawn, start_processes

__all__ = [
    "Fate",
    "ProcessContext",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
    "get_context",
    "install",
    "spawn",
    "start_processes",
]

# The first argument of an interpreter that this package has started, until it knows its own.
RANK_MARK = "--flamespawn-rank"

_MODULES = {
    "Fate": "_errors",
    "ProcessContext": "_context",
    "ProcessException": "_errors",
    "ProcessExitedException": "_errors",
    "ProcessRaisedException": "_errors",
    "get_context": "_mp_context",
    "install": "_mp_context",
    "spawn": "_spawn",
    "start_processes": "_spawn",
}


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415 - as all that follows

    value: object
    if name == "__version__":
        value = import_module("importlib.metadata").version("flamespawn")
    elif name in _MODULES:
        value = getattr(import_module(f"flamespawn.{_MODULES[name]}"), name)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})


if sys.argv[1:2] != [RANK_MARK]:
    for _name in __all__:
        __getattr__(_name)
