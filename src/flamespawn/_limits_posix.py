"""
Which limit kept a process from being started.

Facts about Linux: an error number says that a limit was hit, not which. EAGAIN from fork(2) and
clone(2) is RLIMIT_NPROC, which counts the threads of a user in all sessions and does not bind
root; or `pids.max` of a control group or of one above it; or one of two numbers for the whole
system. EMFILE is this process's RLIMIT_NOFILE, ENFILE the system's. Memory is refused for many
reasons.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from multiprocessing import popen_fork
from pathlib import Path
from typing import Any

from flamespawn import _native

# A start by the standard library needs seven descriptors, with a fork server eight.
_PIPES_OF_A_START = 4

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def make_sure_of_descriptors() -> None:
    """
    Raise now where a start by the standard library would run out of descriptors in the middle.

    It would lose those that it has opened, and a fork server ends when it gets half a request.
    """
    held = [_native.open_pipe() for _ in range(_PIPES_OF_A_START)]
    for pair in held:
        for end in pair:
            end.close()


def close_lost_pipes(error: OSError) -> None:
    """
    Close what `multiprocessing` leaves open when it cannot fork.

    Its two pipes are known to nobody but the function that has opened them.
    """
    launch: Any = popen_fork.Popen
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and trace.tb_frame.f_code is launch._launch.__code__:
        for name in ("parent_r", "child_w", "child_r", "parent_w"):
            if name in trace.tb_frame.f_locals:
                os.close(trace.tb_frame.f_locals[name])


def name_limit(error: OSError, wanted: int) -> None:
    """
    Add a note on the limit that an error means, as far as that can be known.

    Args:
        error: what a start has raised, after what had been started is gone.
        wanted: how many processes were to be started.
    """
    if error.errno == errno.EAGAIN:
        notes = list(_process_limits(wanted)) or [_all_process_limits()]
    elif error.errno == errno.EMFILE:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        notes = [
            f"RLIMIT_NOFILE, the limit on descriptors of this process (ulimit -n), is {soft}; "
            f"it can be raised to {_number(hard)}."
        ]
    elif error.errno == errno.ENFILE:
        notes = [f"fs.file-max, the system's limit on open files, is {_read('sys/fs/file-max')}."]
    elif error.errno == errno.ENOMEM:
        notes = list(_memory_limits())
    elif error.errno == errno.EFBIG:
        soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        notes = [f"RLIMIT_FSIZE, the limit on the size of files (ulimit -f), is {_number(soft)}."]
    elif error.errno == errno.E2BIG:
        size = sum(len(name) + len(value) + 2 for name, value in os.environb.items())
        notes = [f"The environment takes {size} bytes. The limit is a quarter of RLIMIT_STACK."]
    else:
        notes = []
    for note in notes:
        error.add_note(note)


def name_full_file(error: OSError, fd: int) -> None:
    """Add a note on the file system that has no room for the file *fd*, if that is the error."""
    if error.errno != errno.ENOSPC:
        return
    found = os.fstatvfs(fd)
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    error.add_note(
        f"Function and arguments did not fit into {_place_of(fd)}: {free} of {size} bytes are free."
    )


def _place_of(fd: int) -> str:
    target = (_PROC / "self/fd" / str(fd)).readlink()
    return str(target.parent)


def _read(name: str) -> str:
    try:
        return (_PROC / name).read_text().strip()
    except OSError:
        return "unknown"


def _number(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


# ------------------------------------------------------------------------------------- processes


def _process_limits(wanted: int) -> Iterator[str]:
    """Name each limit on processes that leaves no room for as many as were wanted."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    used = _threads_of_user()
    if soft != resource.RLIM_INFINITY and os.getuid() != 0 and used + wanted > soft:
        yield (
            "RLIMIT_NPROC, the limit on processes and threads of this user (ulimit -u), "
            f"is {soft}; {used} were there without the ranks."
        )
    for folder in _control_groups("pids"):
        limit, current = _read_number(folder / "pids.max"), _read_number(folder / "pids.current")
        if limit is not None and current is not None and current + wanted > limit:
            yield (
                f"pids.max of the control group {folder} is {limit}; "
                f"{current} processes and threads were there without the ranks."
            )
    total = _read("loadavg").partition("/")[2].partition(" ")[0]
    for name in ("threads-max", "pid_max"):
        value = _read(f"sys/kernel/{name}")
        if total.isdigit() and value.isdigit() and int(total) + wanted > int(value):
            yield f"kernel.{name}, a limit of the whole system, is {value}."


def _all_process_limits() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    groups = [
        f"pids.max of {folder} {limit}"
        for folder in _control_groups("pids")
        if (limit := _read_number(folder / "pids.max")) is not None
    ]
    system = [f"kernel.{name} {_read(f'sys/kernel/{name}')}" for name in ("threads-max", "pid_max")]
    limits = ", ".join([f"RLIMIT_NPROC {_number(soft)}", *groups, *system])
    return f"Which limit on processes was hit cannot be told: {limits}."


def _threads_of_user() -> int:
    """Return how many threads the user of this process has, as far as they can be seen."""
    count = 0
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                if folder.stat().st_uid == os.getuid():
                    count += len(list((folder / "task").iterdir()))
            except OSError:
                # It has ended meanwhile.
                continue
    return count


def _control_groups(controller: str) -> Iterator[Path]:
    """Return the folders of this process's control group and of those above it."""
    for line in _read("self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            bases = [_CGROUPS, _CGROUPS / "unified"]
        elif controller in controllers.split(","):
            bases = [_CGROUPS / controllers, _CGROUPS / controller]
        else:
            continue
        for base in bases:
            folder = base / path.lstrip("/")
            yield from (place for place in (folder, *folder.parents) if place.is_relative_to(base))


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        # There is no such control group here, or no limit in it.
        return None


# ---------------------------------------------------------------------------------------- memory


def _memory_limits() -> Iterator[str]:
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            yield f"{name} is {soft} bytes; this process has {_field('self/status', 'VmSize')}."
    for folder in _control_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read_number(folder / name)
            # Without a limit version 1 shows the largest number of pages.
            if limit is not None and limit < 1 << 62:
                yield f"{name} of the control group {folder} is {limit} bytes."
    if _read("sys/vm/overcommit_memory") == "2":
        yield f"vm.overcommit_memory is 2, CommitLimit {_field('meminfo', 'CommitLimit')}."
    yield f"MemAvailable of the system is {_field('meminfo', 'MemAvailable')}."


def _field(file: str, name: str) -> str:
    for line in _read(file).splitlines():
        if line.startswith(f"{name}:"):
            return " ".join(line.split()[1:])
    return "unknown"
