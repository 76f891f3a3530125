"""Which limit kept a process from being started; the other half of `_limits_posix`."""

from __future__ import annotations


def name_limit(error: OSError, wanted: int) -> None:
    """Do nothing: the system's own message says what was missing."""


def name_full_file(error: OSError, fd: int) -> None:
    """Do nothing: what is mapped there is memory, not a file."""


def make_sure_of_descriptors() -> None:
    """Do nothing: there is no limit that a process would meet."""


def close_lost_pipes(error: OSError) -> None:
    """Do nothing: nothing is forked."""
