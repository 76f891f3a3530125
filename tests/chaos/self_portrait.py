"""What a launcher can say about itself, to be compared before and after a job."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from multiprocessing import util
from pathlib import Path
from typing import Any

_MASKS = ("SigBlk", "SigIgn", "SigCgt")
# Signals 32 and 33 belong to the C library's threads.
_LIBRARY = 3 << 31


def portrait(helpers: set[int | None]) -> dict[str, Any]:
    """
    Return descriptors, threads, children, files, and how signals are handled.

    Args:
        helpers: pids of the processes that multiprocessing keeps.
    """
    # The kernel does not tell when a detached thread is gone.
    end = time.monotonic() + 10
    while _threads() > threading.active_count() and time.monotonic() < end:
        time.sleep(0.001)
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd)
    umask = os.umask(0o22)
    os.umask(umask)
    status = Path("/proc/self/status").read_text().splitlines()
    return {
        "descriptors": _descriptors(),
        "threads": (_threads(), threading.active_count()),
        "children": [child for child in _children() if child[0] not in helpers],
        "files": sorted(_files(tempfile.gettempdir())),
        "handlers": {n: repr(signal.getsignal(n)) for n in sorted(signal.valid_signals())},
        "masks": [_masks(line) for line in status if line.startswith(_MASKS)],
        "wakeup_fd": wakeup_fd,
        "timers": signal.getitimer(signal.ITIMER_REAL)[0],
        "folder": os.getcwd(),
        "umask": umask,
        "environment": dict(os.environ),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "active children": [child.name for child in multiprocessing.active_children()],
        "exit handlers": len(util._finalizer_registry),
        "fork handlers": len(util._afterfork_registry),
        "hooks": [repr(sys.excepthook), repr(threading.excepthook), repr(sys.meta_path)],
        "path": list(sys.path),
    }


def _masks(line: str) -> str:
    name, mask = line.split()
    return f"{name} {int(mask, 16) & ~_LIBRARY:x}"


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _descriptors() -> dict[str, str]:
    result = {}
    for entry in os.scandir("/proc/self/fd"):
        try:
            result[entry.name] = os.readlink(entry.path)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return result


def _children() -> list[tuple[int, str]]:
    """Return pid and state of all children, zombies included."""
    result = []
    for task in os.listdir("/proc/self/task"):
        try:
            children = Path(f"/proc/self/task/{task}/children").read_text().split()
        except FileNotFoundError:
            continue
        for child in children:
            try:
                stat = Path(f"/proc/{child}/stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            result.append((int(child), stat.rpartition(")")[2].split()[0]))
    return result


def _files(folder: str) -> list[str]:
    return [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]
