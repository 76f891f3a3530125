"""
What runs in a rank: the user's function, and the report on how it went.

Every rank imports this module: what only failures need is imported when one happens.
"""

import os
import sys

from flamespawn._platform import here
from flamespawn._report_writer import ReportWriter, is_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from typing import Any

    from flamespawn._job import GuardOrder

# What a shell shows for a program that Ctrl-C has ended.
INTERRUPTED = 130


def run(
    fn: "Callable[..., object]",
    rank: int,
    args: "Sequence[Any]",
    pipe: "Connection",
    guard: "GuardOrder | None" = None,
) -> None:
    """
    Call `fn(rank, *args)` and report how it ended: what `multiprocessing` runs in a rank.

    Whatever *fn* raises ends the process with a non-zero exit code and without a traceback on
    stderr: the launcher shows it.

    Args:
        fn: what to call.
        rank: its first argument.
        args: the others.
        pipe: to report through.
        guard: how this process is guarded, if it is.
    """
    pid = os.getpid()
    if guard is not None:
        guard.carry_out(rank)
    report = ReportWriter(here.report_fd(pipe.fileno()), rank)
    code = call(fn, rank, args, report)
    if code:
        sys.exit(code)
    if os.getpid() == pid:
        if guard is not None:
            guard.ended_well()
        tell(report.done)


def call(
    fn: "Callable[..., object]", rank: int, args: "Sequence[Any]", report: "ReportWriter"
) -> int:
    """
    Call `fn(rank, *args)`, and report a failure at once.

    Returns:
        The exit code. Zero means that all went well, which is left for the caller to report.

    A process that *fn* has forked, and that comes back here, is not the rank: it does not report.
    """
    pid = os.getpid()
    tell(report.started, report.arm())
    try:
        fn(rank, *args)
    except SystemExit as error:
        return exit(error, report if os.getpid() == pid else None)
    except BaseException as error:  # noqa: BLE001 - the launcher is to know all of them
        # Without the frame of this function, which nobody wants to see.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return fail(report, error) if os.getpid() == pid else show(error)
    return 0


def tell(report: "Callable[..., None]", *args: object) -> None:
    """Report, unless nobody listens: a launcher that exits waits for its ranks without reading."""
    try:
        report(*args)
    except BrokenPipeError as error:
        if not is_own(error):
            raise


def fail(report: "ReportWriter", error: BaseException) -> int:
    """Report a failure and return the exit code that goes with it."""
    interrupted = isinstance(error, KeyboardInterrupt)
    try:
        report.failed(error)
    except OSError as unheard:
        if not is_own(unheard):
            raise
        # The launcher is gone, or fn has closed the pipe: say it where somebody may see it.
        if not interrupted:
            show(error)
    return INTERRUPTED if interrupted else 1


def show(error: BaseException) -> int:
    """Print a traceback and return the exit code that goes with it."""
    import traceback

    traceback.print_exception(error)
    return 1


def exit(error: SystemExit, report: "ReportWriter | None") -> int:  # noqa: A001 - its name everywhere
    """Report an exit, if there is somewhere to report to; print its message; return its code."""
    code, message = _exit_code(error)
    if code and report is not None:
        tell(report.exiting, code, message)
    if message and sys.stderr is not None:
        try:
            sys.stderr.write(f"{message}\n")
        except (OSError, ValueError):
            # As the interpreter has it.
            return code
    return code


def _exit_code(error: SystemExit) -> "tuple[int, str]":
    """Return the exit code and the message that the interpreter makes of a SystemExit."""
    if error.code is None:
        return 0, ""
    if isinstance(error.code, int):
        return here.exit_code(error.code), ""
    return 1, str(error.code)
