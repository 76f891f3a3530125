"""
Whether the system has killed processes because memory was short.

Facts about Linux, from 4.13 on:

- Each memory group counts the processes that were killed in it for want of memory, whether it was
  the group's limit that was met or the machine's. In version 1 of control groups the count is
  `oom_kill` in `memory.oom_control`, in version 2 in `memory.events`, where it includes the groups
  below. The root group of version 2 has no such file.
- `/proc/vmstat` has the count for the whole system.
- The kernel counts before it kills.
- `/proc/self/cgroup` has a line for each hierarchy. `/proc/self/mountinfo` tells where hierarchies
  are to be seen, and which of their groups is the uppermost there: in a container that is often
  its own.

A dead process does not tell which group it was in. It is taken to be the launcher's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence

from flamespawn._member import Member


class MemoryWatch:
    """Tells of which ranks it is likely that the system has killed them, from its making on."""

    def __init__(self) -> None:
        self._before = kills()

    def find_killed(self, members: Sequence[Member]) -> None:
        """Mark them."""
        killed = [member for member in members if member.was_killed_by_others]
        if killed and self._before is not None:
            now = kills()
            for member in killed:
                member.out_of_memory = now is not None and now > self._before


def kills(root: str = "/") -> int | None:
    """
    Return how many processes were killed in this process's group so far; None if nobody says.

    Args:
        root: where `/proc` and the control groups are.
    """
    groups = _content(os.path.join(root, "proc/self/cgroup"))
    try:
        for file in _counters(groups, root):
            for line in _content(file).splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    except ValueError:
        # Somebody imitates these files, and not well.
        return None
    return None


def _content(file: str) -> str:
    try:
        with open(file) as stream:
            return stream.read()
    except OSError:
        # No Linux, an old one, no memory controller for this group, or a sandbox that hides it.
        return ""


@functools.lru_cache(maxsize=4)
def _counters(groups: str, root: str) -> tuple[str, ...]:
    """Return the files that may have the count, the best one first."""
    return (*_group_files(groups, root), os.path.join(root, "proc/vmstat"))


def _group_files(groups: str, root: str) -> Iterator[str]:
    # Hierarchy, controllers, path. That of version 2 names no controllers.
    lines = [line.split(":", 2) for line in groups.splitlines()]
    for controller, file in (("memory", "memory.oom_control"), ("", "memory.events")):
        for _, controllers, group in lines:
            if controller in controllers.split(","):
                folder = _folder(root, controller, group)
                if folder is not None:
                    yield os.path.join(root, folder, file)


def _folder(root: str, controller: str, group: str) -> str | None:
    """Return where a group is to be seen, or None."""
    for mount in _content(os.path.join(root, "proc/self/mountinfo")).splitlines():
        # Number, parent, device, uppermost group, folder, ... - type, source, options.
        first, _, last = mount.partition(" - ")
        _, _, _, uppermost, folder, *_ = first.split(" ")
        kind, _, options = last.split(" ", 2)
        fits = kind == "cgroup" and controller in options.split(",")
        if not controller:
            fits = kind == "cgroup2"
        below = os.path.relpath(group, uppermost)
        if fits and not below.startswith(".."):
            return os.path.normpath(os.path.join(folder, below)).lstrip("/")
    return None
