"""
What a process of ours does in its own way on POSIX; `_here_windows` is its other half.

Every rank imports this module: it imports as little as it can.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap

read_at = os.pread
close = os.close


def exit_code(number: int) -> int:
    """Return what the system keeps of the argument of `sys.exit`."""
    return number & 0xFF if -(1 << 63) <= number < 1 << 63 else 0xFF


def report_fd(handle: int) -> int:
    """Return the descriptor for what a process has inherited to report to."""
    return handle


def keep_from_children(handle: int) -> None:
    """Let no process that this one starts inherit what it has inherited itself."""
    os.set_inheritable(handle, False)


def let_interrupts_in() -> None:
    import _signal  # built in; `signal` makes enumerations of it first

    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))


def map_privately(fd: int, size: int) -> "mmap":
    """Map a file so that writing to the memory changes nothing for others."""
    import mmap  # only for large arguments

    # The mapping keeps the file; from 3.13 on it need not keep a descriptor for that.
    untracked = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    return mmap.mmap(
        fd,
        size,
        flags=mmap.MAP_PRIVATE,
        prot=mmap.PROT_READ | mmap.PROT_WRITE,
        **untracked,
    )


def host_name() -> str:
    return os.uname().nodename
