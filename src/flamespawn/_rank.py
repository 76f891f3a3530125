"""What runs in a rank: the user's function, and the report on how it went."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from flamespawn._report import ReportWriter

# What a shell shows for a program that Ctrl-C has ended.
_INTERRUPTED = 130


def run(fn: Callable[..., object], rank: int, args: Sequence[Any], pipe: Connection) -> None:
    """
    Call `fn(rank, *args)` and report how it ended; the entry point of every rank.

    Whatever *fn* raises ends the process with a non-zero exit code and without a traceback on
    stderr: the launcher shows it.
    """
    pid = os.getpid()
    report = ReportWriter(pipe.fileno(), rank)
    _tell(report.started)
    try:
        fn(rank, *args)
    except SystemExit as error:
        if os.getpid() != pid:
            raise
        code, message = _exit_code(error)
        if code == 0:
            _tell(report.done)
        else:
            _tell(report.exiting, code, message)
        raise
    except BaseException as error:
        # A process that fn has forked, and that came back here, is not the rank.
        if os.getpid() != pid:
            raise
        # Without the frame of this function, which nobody wants to see.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        _report_failure(report, error)
        sys.exit(_INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1)
    if os.getpid() == pid:
        _tell(report.done)


def _tell(report: Callable[..., None], *args: object) -> None:
    """Report, unless nobody listens: a launcher that exits waits for its ranks without reading."""
    with contextlib.suppress(BrokenPipeError):
        report(*args)


def _exit_code(error: SystemExit) -> tuple[int, str]:
    """Return the exit code and the message that the interpreter makes of a SystemExit."""
    if error.code is None:
        return 0, ""
    if isinstance(error.code, int):
        # The system keeps the low eight bits.
        return error.code & 0xFF, ""
    return 1, str(error.code)


def _report_failure(report: ReportWriter, error: BaseException) -> None:
    try:
        report.failed(error)
    except OSError:
        # The launcher is gone, or fn has closed the pipe: say it where somebody may see it.
        traceback.print_exception(error)
