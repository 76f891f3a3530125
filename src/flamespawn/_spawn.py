"""Starting ranks."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from flamespawn import _fresh, _multiprocessing
from flamespawn._context import ProcessContext
from flamespawn._deadline import check_seconds
from flamespawn._forward import check_signals
from flamespawn._platform import name_limit
from flamespawn._starts import ForkServerStart, FreshStart, MultiprocessingStart, Start
from flamespawn._teardown import DEFAULT_GRACE_PERIOD


def _check_kind(name: str, value: object, expected: str, *, fits: bool) -> None:
    if not fits:
        msg = f"{name} must be {expected}, not {type(value).__name__}"
        raise TypeError(msg)


def _check_nprocs(nprocs: object) -> int:
    _check_kind("nprocs", nprocs, "a whole number", fits=not isinstance(nprocs, bool))
    try:
        number = operator.index(nprocs)  # type: ignore[arg-type]
    except TypeError:
        msg = f"nprocs must be a whole number, not {type(nprocs).__name__}"
        raise TypeError(msg) from None
    if number < 1:
        msg = f"nprocs must be at least 1, not {number}"
        raise ValueError(msg)
    return number


def _check_start_method(start_method: object) -> None:
    _check_kind("start_method", start_method, "a string", fits=isinstance(start_method, str))
    if start_method not in _multiprocessing.start_methods():
        known = ", ".join(map(repr, _multiprocessing.start_methods()))
        msg = f"start_method must be one of {known} on this system, not {start_method!r}"
        raise ValueError(msg)


@overload
def start_processes(
    fn: Callable[..., object],
    args: Sequence[Any] = ...,
    nprocs: int = ...,
    join: Literal[True] = ...,
    daemon: bool = ...,
    start_method: str = ...,
    *,
    grace_period: float = ...,
    full_exit: bool = ...,
    forward_signals: Sequence[int] = ...,
) -> None: ...
@overload
def start_processes(
    fn: Callable[..., object],
    args: Sequence[Any] = ...,
    nprocs: int = ...,
    *,
    join: Literal[False],
    daemon: bool = ...,
    start_method: str = ...,
    grace_period: float = ...,
    full_exit: bool = ...,
    forward_signals: Sequence[int] = ...,
) -> ProcessContext: ...
@overload
def start_processes(
    fn: Callable[..., object],
    args: Sequence[Any],
    nprocs: int,
    join: bool,
    daemon: bool = ...,
    start_method: str = ...,
    *,
    grace_period: float = ...,
    full_exit: bool = ...,
    forward_signals: Sequence[int] = ...,
) -> ProcessContext | None: ...
def start_processes(
    fn: Callable[..., object],
    args: Sequence[Any] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
    *,
    grace_period: float = DEFAULT_GRACE_PERIOD,
    full_exit: bool = False,
    forward_signals: Sequence[int] = (),
) -> ProcessContext | None:
    """
    Start *nprocs* processes that run `fn(i, *args)`, with *i* from 0 to `nprocs - 1`.

    Args:
        fn: the function. What it returns is ignored: to hand something back, write it to where
            *args* says, such as a file, a shared array, or a queue that is read while the ranks
            run. With `spawn` and `forkserver` it must be
            picklable, as defined at the top level of a module that the ranks can import.
        args: a tuple or list of further arguments, picklable as *fn*.
        nprocs: how many; at least 1.
        join: wait until all have ended. On the first failure, or when the wait is interrupted by
            an exception such as `KeyboardInterrupt`, all ranks are stopped and it is raised.
        daemon: daemonic processes are ended when the launcher exits, and may not have children.
        start_method: `"spawn"`, `"fork"` or `"forkserver"`, as `multiprocessing` has them on this
            system; never the interpreter's default.
        grace_period: seconds between SIGTERM and SIGKILL when ranks have to be stopped.
        full_exit: let the interpreters of `spawn` take themselves apart as they end, for profilers
            and sanitizers that need it. By default a rank ends as soon as its exit handlers have
            run and its streams are flushed. The environment variable `FLAMESPAWN_FULL_EXIT=1` does
            the same for all ranks.
        forward_signals: signals, of SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2, that the launcher sends
            on to the ranks that run, once each time that it gets one. After SIGTERM and SIGHUP the
            ranks have the grace period to save their state and to end; then they are killed, and
            `SystemExit` with 128 and the number of the signal is raised, however they have ended.
            The handlers of these signals are replaced until all ranks have ended. For the main
            thread only.

    Returns:
        None with *join*; otherwise a `ProcessContext`.

    Raises:
        TypeError, ValueError: an argument is wrong; named before any process exists.
        RuntimeError: this process is a daemonic one, which may not start others; or there are
            signals to be forwarded, and this is not the main thread.
        ProcessException: see `ProcessContext.join`.
        SystemExit: a signal that was forwarded has ended the ranks.

    If a rank cannot be started, those before it are stopped before the exception arrives.
    """
    _check_kind("fn", fn, "callable", fits=callable(fn))
    _check_kind("args", args, "a tuple or a list", fits=isinstance(args, tuple | list))
    nprocs = _check_nprocs(nprocs)
    _check_kind("join", join, "True or False", fits=isinstance(join, bool))
    _check_kind("daemon", daemon, "True or False", fits=isinstance(daemon, bool))
    _check_kind("full_exit", full_exit, "True or False", fits=isinstance(full_exit, bool))
    _check_start_method(start_method)
    grace_period = check_seconds("grace_period", grace_period)
    signals = check_signals(forward_signals)
    if _multiprocessing.is_daemonic():
        msg = "a daemonic process cannot start ranks"
        raise RuntimeError(msg)

    _fresh.refuse_to_start()
    start: Start
    if start_method == "spawn" and not _multiprocessing.is_frozen():
        start = FreshStart(fn, args, daemon=daemon, full_exit=full_exit)
    elif start_method == "forkserver":
        start = ForkServerStart(fn, args, daemon=daemon)
    else:
        start = MultiprocessingStart(fn, args, daemon=daemon, start_method=start_method)
    try:
        return start.run(nprocs, join=join, grace_period=grace_period, signals=signals)
    except OSError as error:
        name_limit(error, nprocs)
        raise


def spawn(
    fn: Callable[..., object],
    args: Sequence[Any] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
    *,
    grace_period: float = DEFAULT_GRACE_PERIOD,
    full_exit: bool = False,
    forward_signals: Sequence[int] = (),
) -> ProcessContext | None:
    """
    Start *nprocs* fresh interpreters that run `fn(i, *args)`.

    The same as `start_processes` with `start_method="spawn"`. Another start method is not used:
    it only gives a `FutureWarning`, as in torch.

    See `start_processes` for arguments, result and exceptions.
    """
    _check_start_method(start_method)
    if start_method != "spawn":
        warnings.warn(
            f"spawn() always uses start_method='spawn' (got: {start_method!r}); "
            "use flamespawn.start_processes() for another one",
            FutureWarning,
            stacklevel=2,
        )
    return start_processes(
        fn,
        args,
        nprocs,
        join,
        daemon,
        "spawn",
        grace_period=grace_period,
        full_exit=full_exit,
        forward_signals=forward_signals,
    )
