"""
What a process of ours does in its own way on Windows; `_here_posix` is its other half.

Every rank imports this module: it imports as little as it can. `msvcrt` and `_winapi` are built in.
"""

import msvcrt
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap


def exit_code(number: int) -> int:
    """Return what the system keeps of the argument of `sys.exit`."""
    # What had no place in 32 bits was an error before gh-125842; now its low bits are taken.
    was_error = sys.version_info < (3, 12, 8) or sys.version_info[:3] == (3, 13, 0)
    limit = 1 << (31 if was_error else 63)
    return number & 0xFFFF_FFFF if -limit <= number < limit else 0xFFFF_FFFF


def report_fd(handle: int) -> int:
    """Return the descriptor for what a process has inherited to report to."""
    return msvcrt.open_osfhandle(handle, os.O_WRONLY | os.O_BINARY | os.O_NOINHERIT)


def keep_from_children(handle: int) -> None:
    """Let no process that this one starts inherit what it has inherited itself."""
    os.set_handle_inheritable(handle, False)


def let_interrupts_in() -> None:
    """Do nothing: a Ctrl-C in the console is for the launcher alone, which stops its ranks."""


close = os.close


def read_at(fd: int, size: int, start: int) -> bytes:
    """Read from a file that other processes read as well, whose position they all share."""
    import mmap  # built in

    with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as memory:
        return memory[start : start + size]


def map_privately(fd: int, size: int) -> "mmap":
    """Map a file so that writing to the memory changes nothing for others."""
    import mmap

    return mmap.mmap(fd, size, access=mmap.ACCESS_COPY)


def host_name() -> str:
    return os.environ.get("COMPUTERNAME", "")
