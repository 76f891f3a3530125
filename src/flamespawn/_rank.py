"""
What runs in a rank: the user's function, and the report on how it went.

Every rank imports this module: what only failures need is imported when one happens.
"""

from __future__ import annotations

import os
import sys

from flamespawn._report_writer import ReportWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from typing import Any

# What a shell shows for a program that Ctrl-C has ended.
_INTERRUPTED = 130


def run(fn: Callable[..., object], rank: int, args: Sequence[Any], pipe: Connection) -> None:
    """
    Call `fn(rank, *args)` and report how it ended: what `multiprocessing` runs in a rank.

    Whatever *fn* raises ends the process with a non-zero exit code and without a traceback on
    stderr: the launcher shows it.
    """
    pid = os.getpid()
    report = ReportWriter(pipe.fileno(), rank)
    code = call(fn, rank, args, report)
    if code:
        sys.exit(code)
    if os.getpid() == pid:
        tell(report.done)


def call(fn: Callable[..., object], rank: int, args: Sequence[Any], report: ReportWriter) -> int:
    """
    Call `fn(rank, *args)`, and report a failure at once.

    Returns:
        The exit code. Zero means that all went well, which is left for the caller to report.

    A process that *fn* has forked, and that comes back here, is not the rank: it does not report.
    """
    pid = os.getpid()
    tell(report.started)
    try:
        fn(rank, *args)
    except SystemExit as error:
        code, message = _exit_code(error)
        if message:
            sys.stderr.write(f"{message}\n")
        if code and os.getpid() == pid:
            tell(report.exiting, code, message)
        return code
    except BaseException as error:  # noqa: BLE001 - the launcher is to know all of them
        # Without the frame of this function, which nobody wants to see.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return fail(report, error) if os.getpid() == pid else show(error)
    return 0


def tell(report: Callable[..., None], *args: object) -> None:
    """Report, unless nobody listens: a launcher that exits waits for its ranks without reading."""
    try:
        report(*args)
    except BrokenPipeError:
        return


def fail(report: ReportWriter, error: BaseException) -> int:
    """Report a failure and return the exit code that goes with it."""
    try:
        report.failed(error)
    except OSError:
        # The launcher is gone, or fn has closed the pipe: say it where somebody may see it.
        show(error)
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def show(error: BaseException) -> int:
    """Print a traceback and return the exit code that goes with it."""
    import traceback

    traceback.print_exception(error)
    return 1


def _exit_code(error: SystemExit) -> tuple[int, str]:
    """Return the exit code and the message that the interpreter makes of a SystemExit."""
    if error.code is None:
        return 0, ""
    if isinstance(error.code, int):
        # The system keeps the low eight bits.
        return error.code & 0xFF, ""
    return 1, str(error.code)
