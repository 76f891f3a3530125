"""Start N processes, wait for all of them without polling, and raise the first failure."""

from __future__ import annotations

from flamespawn._context import ProcessContext
from flamespawn._errors import (
    Fate,
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
)
from flamespawn._spawn import spawn, start_processes

__all__ = [
    "Fate",
    "ProcessContext",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
    "spawn",
    "start_processes",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        # Not at the top: it costs more to import than everything else here.
        from importlib.metadata import version  # noqa: PLC0415

        return version("flamespawn")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
