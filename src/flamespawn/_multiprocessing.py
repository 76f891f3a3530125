"""
All that is known here about the inside of the standard library's multiprocessing.

Facts that this module relies on, in CPython 3.11 to 3.15:

- `Process._popen.returncode` is None until somebody has collected the exit status; whoever sets
  it has collected. `multiprocessing` collects for itself in `exitcode`, `is_alive`, `join`,
  `active_children` and at every `start` of any process.
- Under `forkserver` the process is the server's child. The server collects the status and writes
  it to a pipe whose read end is the process's `sentinel`.
- What is pickled for a process asks `get_spawning_popen()` how to send descriptors, and refuses
  where there is no such object.
- Queues and connections send an object as a length and a pickle; the read end is `_reader`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing
import multiprocessing.context
import multiprocessing.process
import multiprocessing.spawn
import multiprocessing.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from flamespawn._platform import RSS_UNIT, wait_for_exit_code

# What the process object shows when the status went to somebody who did not tell; asyncio and
# the fork server use the same value.
UNKNOWN_EXIT_CODE = 255

# Finalizers that have no priority are called after the wait for children.
_FINALIZER_PRIORITY = 100

_INSTALLED_AS = "flamespawn"


def start_methods() -> list[str]:
    return multiprocessing.get_all_start_methods()


def context(start_method: str) -> multiprocessing.context.BaseContext:
    return multiprocessing.get_context(start_method)


def is_daemonic() -> bool:
    """Return whether this process is a daemonic one, which may not have children."""
    return multiprocessing.current_process().daemon


class Popen(Protocol):
    """What a started process object keeps about its process."""

    returncode: int | None


def popen_of(process: BaseProcess) -> Popen:
    """
    Return where the exit code of a started process is to be written by whoever collects it.

    Then `exitcode` and `is_alive` of the process object are right.
    """
    popen: Popen = process._popen  # type: ignore[attr-defined]
    return popen


def exit_code_taken_elsewhere(
    process: BaseProcess, popen: Popen, *, worth_waiting: bool
) -> int | None:
    """
    Return the exit code of a process that somebody else has collected, None if unknown.

    Args:
        process: the process object.
        popen: what `popen_of` returned for it.
        worth_waiting: whether more depends on it than what the process object shows.
    """
    exit_code = popen.returncode
    # Only one who knows the exit code closes the object.
    closed = process._popen is None  # type: ignore[attr-defined]
    if exit_code is None and not closed:
        exit_code = process.exitcode
        if exit_code is None and worth_waiting:
            exit_code = wait_for_exit_code(popen)
    if exit_code is None:
        popen.returncode = UNKNOWN_EXIT_CODE
    # The process object may have had to guess.
    return None if getattr(popen, "is_unknown", False) else exit_code


def usage_of(popen: Popen) -> tuple[bool, int, int, int] | None:
    """
    Return the resource usage of a process of ours whose object has collected it, or None.

    Returns:
        Whether it dumped core, nanoseconds of user time and of system time, bytes of memory.
    """
    usage = getattr(popen, "usage", None)
    if usage is None:
        return None
    core_dumped: bool = popen.core_dumped  # type: ignore[attr-defined]
    times = int(usage.ru_utime * 1e9), int(usage.ru_stime * 1e9)
    return (core_dumped, *times, usage.ru_maxrss * RSS_UNIT)


def retire(process: BaseProcess) -> None:
    """Take a process that has ended off multiprocessing's list of active children."""
    if process._popen is not None:  # type: ignore[attr-defined]
        process.join()


@contextlib.contextmanager
def spawning(popen: object) -> Iterator[None]:
    """Let objects that can only be sent to a new process be pickled, with *popen* to serve them."""
    previous = multiprocessing.context.get_spawning_popen()
    multiprocessing.context.set_spawning_popen(popen)  # type: ignore[arg-type]
    try:
        yield
    finally:
        multiprocessing.context.set_spawning_popen(previous)


def interpreter() -> list[str]:
    """Return the command that starts this interpreter with this process's options."""
    executable = os.fsdecode(multiprocessing.spawn.get_executable())
    flags: list[str] = multiprocessing.util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [executable, *flags]


def preparation(name: str) -> dict[str, Any]:
    """
    Return what makes a fresh interpreter like this one, by names that its preparation knows.

    `multiprocessing` decides most of it: path, arguments, main module, key, log level. The rest is
    who this process is, for `parent_process()` there.
    """
    me: Any = multiprocessing.process.current_process()
    data = multiprocessing.spawn.get_preparation_data(name)
    # A subclass of bytes that refuses to be pickled by others.
    config = {key: bytes(value) if key == "authkey" else value for key, value in me._config.items()}
    if not main_can_be_imported():
        # It may have a path all the same, such as `<stdin>`.
        data.pop("init_main_from_path", None)
    return data | {
        "authkey": bytes(data["authkey"]),
        "sys_path": [str(entry) for entry in data["sys_path"] if isinstance(entry, str)],
        "config": config,
        "identity": me._identity,
        "launcher_name": me.name,
        "main_code": _code_of_script(data.get("init_main_from_path")),
        "launcher_pid": os.getpid(),
    }


def _code_of_script(path: str | None) -> types.CodeType | None:
    """Return the compiled script, or None where the process itself must see what *path* is."""
    if path is None or not path.endswith((".py", ".pyw")) or not os.path.isfile(path):  # noqa: PTH113
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - any kind of path
        return _compiled(path, (status.st_ino, status.st_mtime_ns, status.st_size))
    except (OSError, SyntaxError, ValueError):
        # It has been changed since it was started; the ranks report what is wrong.
        return None


@functools.lru_cache(maxsize=1)
def _compiled(path: str, _version: tuple[int, ...]) -> types.CodeType:
    """Compile a script once for all processes that are started while it stays the same."""
    with io.open_code(path) as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def is_frozen() -> bool:
    """Return whether this is a program with its interpreter built in, which takes no options."""
    return bool(getattr(sys, "frozen", False))


def main_can_be_imported() -> bool:
    """Return whether a fresh interpreter can, and will, run this process's main module again."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        # That of a package, a folder or an archive has no guard.
        return str(spec.name).rpartition(".")[2] != "__main__"
    path = getattr(main, "__file__", None)
    return path is not None and os.path.exists(path)  # noqa: PTH110 - any kind of file


def identity(process: BaseProcess) -> tuple[int, ...]:
    """Return the numbers of a process and of its ancestors among their siblings."""
    numbers: tuple[int, ...] = process._identity
    return numbers


def flush_streams() -> None:
    multiprocessing.util._flush_std_streams()  # type: ignore[attr-defined]


def is_installed() -> bool:
    """Return whether flamespawn is what `multiprocessing` starts processes with."""
    return _INSTALLED_AS in multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]


def install(context: multiprocessing.context.BaseContext) -> None:
    """Make *context* the start method "spawn" of `multiprocessing`, also called "flamespawn"."""
    contexts: dict[str, Any] = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    default: Any = multiprocessing.context._default_context
    if default._actual_context is contexts["spawn"]:
        default._actual_context = context
    contexts["spawn"] = contexts[_INSTALLED_AS] = context


def adopt(process: BaseProcess, popen: Any) -> None:
    """Make *process*, which has not been started, the object for a running process."""
    children: set[BaseProcess] = multiprocessing.process._children  # type: ignore[attr-defined]
    raw: Any = process
    raw._popen = popen
    raw._sentinel = popen.sentinel
    for name in ("_target", "_args", "_kwargs"):
        vars(process).pop(name, None)
    children.add(process)


def call_finalizer(function: Callable[[], object]) -> None:
    """Call *function* before this process waits for its children."""
    multiprocessing.util.Finalize(None, function, exitpriority=_FINALIZER_PRIORITY)


def disown(process: BaseProcess) -> None:
    """Let this process not wait for *process* when it exits."""
    children: set[BaseProcess] = multiprocessing.process._children  # type: ignore[attr-defined]
    children.discard(process)
