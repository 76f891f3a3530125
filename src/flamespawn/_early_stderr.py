"""
What ranks of `spawn` write on their standard error before they can report.

An interpreter that cannot start says why on its standard error, and nowhere else. All ranks of a
launch therefore begin with one anonymous file there, in which each has a part of its own; what is
not written to takes no memory. As soon as a rank has come to code of ours, `_fresh` hands on what
is in its part, and the rank has the launcher's standard error from then on.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from flamespawn._lifetime import call_after_fork
from flamespawn._native import FEATURE_TREE, Fd
from flamespawn._platform import anonymous_file, features

# Nobody says more before it starts; if it does, it ends up in the next one's part.
PART_SIZE = 1 << 20

# What is shown in an exception.
_MOST_LINES = 12
_MOST_CHARACTERS = 400


@functools.cache
def can_open_anew() -> bool:
    """Return whether a file that is open can be opened again, at an offset of its own (Linux)."""
    # Wine shows Linux' /proc to programs for Windows.
    return bool(features() & FEATURE_TREE) and Path("/proc/self/fd").is_dir()


def open_early_stderr() -> EarlyStderr | None:
    """Return a new one; None where it cannot be had or would be in the way."""
    if not can_open_anew():
        return None
    import resource  # noqa: PLC0415 - there is none on Windows

    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        # Whoever writes beyond the limit is killed.
        return None
    try:
        os.fstat(2)
    except OSError:
        # The launcher has no standard error, and neither have its ranks.
        return None
    return EarlyStderr()


class EarlyStderr:
    """The file, and the launcher's standard error."""

    def __init__(self) -> None:
        self.launchers = Fd(os.dup, 2)
        self._file = anonymous_file("stderr")
        self.path = f"/proc/self/fd/{self._file.fileno()}"
        call_after_fork(self, EarlyStderr._close)

    def for_ranks(self) -> tuple[int, int, int, int]:
        """Return what a rank is to know: the launcher's, which file this is, the size of a part."""
        status = os.fstat(self._file.fileno())
        return self.launchers.fileno(), status.st_dev, status.st_ino, PART_SIZE

    def take(self, rank: int) -> bytes:
        """Hand on what a rank has left in its part, and return it."""
        fd = self._file.fileno()
        if os.fstat(fd).st_blocks == 0:
            # Nobody has ever written anything.
            return b""
        text = os.pread(fd, PART_SIZE, rank * PART_SIZE).rstrip(b"\0")
        try:
            if text:
                os.write(2, text)
        except OSError:
            # Nobody listens; the rank could not have told it either.
            return text
        return text

    def _close(self) -> None:
        self._file.close()
        self.launchers.close()


def last_lines(text: bytes) -> str:
    """Return the end of a text, so that it can be shown in an exception."""
    lines = text.decode(errors="replace").splitlines()[-_MOST_LINES:]
    return "\n".join(f"  {line[:_MOST_CHARACTERS]}" for line in lines)
