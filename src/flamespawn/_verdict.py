"""Which rank is to blame: the one that failed first, of its own accord."""

from __future__ import annotations

from collections.abc import Sequence

from flamespawn._member import Member


def note_dying(members: Sequence[Member], well_at: int) -> None:
    """
    Note which ranks are dying without a word when the first failure is known.

    The end of a process takes its time. Its peers see that it has closed its connections, and may
    have reported that before it has closed the report pipe. To be called before any rank is sent a
    signal.

    Args:
        members: all ranks.
        well_at: when those that had not failed were last known to be well.
    """
    for member in members:
        member.note_dying(well_at)


def find_culprit(members: Sequence[Member]) -> Member | None:
    """Return the member that failed first, those that the launcher stopped coming last."""
    failed = [member for member in members if member.failed_at is not None]
    own = [member for member in failed if not member.was_stopped]
    first = min(own or failed, key=lambda member: member.failure_order, default=None)
    # Those that were dying may be why it has failed, unless they have shown life after that.
    dying = [member for member in own if first is not None and member.may_have_died_before(first)]
    return min(dying, key=lambda member: member.failure_order, default=first)
