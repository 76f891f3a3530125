"""Stopping ranks: what is due when, as data and one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from flamespawn._member import Member
from flamespawn._native import ProcSet
from flamespawn._platform import KILL, STOP

_Action = Callable[[Member, ProcSet], None]

# Seconds between SIGTERM and SIGKILL where the caller does not say.
DEFAULT_GRACE_PERIOD = 5.0

# How long a rank may take to answer when it is asked for its stacks, if the grace period is not
# over before. It gets SIGTERM as soon as it has.
ANSWER_TIME = 0.5

# A rank whose function has ended is on its way out: its exit handlers may run for this long, or
# for the grace period if that is shorter, before it gets SIGTERM like the others.
EXIT_TIME = 0.5

# The time that a killed process has to disappear. One that does not is stuck in the kernel, where
# no signal reaches it, and nobody can say for how long.
REAP_TIME = 2.0


def _kill(member: Member, process_set: ProcSet) -> None:
    member.signal(process_set, KILL)


class Teardown:
    """
    The ending of all ranks within one deadline.

    Args:
        members: all ranks; those that have ended are left alone.
        grace_period: seconds until SIGKILL.
        ask: ask the ranks for their stacks first.
    """

    def __init__(self, members: Sequence[Member], grace_period: float, *, ask: bool) -> None:
        now = time.perf_counter_ns()
        grace = max(grace_period, 0.0)
        leaving = [member for member in members if member.source.is_leaving]
        others = [member for member in members if not member.source.is_leaving]
        asked = [m for m in members if m.can_be_asked] if ask and grace > 0 else []
        self._members = members
        self._end = now + int((grace + REAP_TIME) * 1e9)
        # Those that get SIGTERM as soon as nothing is expected of them any more.
        self._running = others
        plan: list[tuple[float, Sequence[Member], _Action]] = [
            (0.0, asked, Member.ask),
            (min(ANSWER_TIME, grace), asked, Member.expect_no_answer),
            (min(EXIT_TIME, grace), leaving, self._expect_end),
            (grace, members, _kill),
        ]
        self._steps = [(now + int(delay * 1e9), who, action) for delay, who, action in plan]

    def hasten(self, grace_period: float) -> None:
        """Move SIGKILL forward to *grace_period* seconds from now, never back."""
        limit = time.perf_counter_ns() + int(max(grace_period, 0.0) * 1e9)
        self._steps = [(min(due, limit), who, action) for due, who, action in self._steps]
        self._end = min(self._end, limit + int(REAP_TIME * 1e9))

    def advance(self, process_set: ProcSet) -> int | None:
        """
        Do what is due.

        Returns:
            When to call again, in nanoseconds of the monotonic clock; None when all ranks have
            ended or have been given up.
        """
        if all(member.ended for member in self._members):
            return None
        now = time.perf_counter_ns()
        while self._steps and self._steps[0][0] <= now:
            _, members, action = self._steps.pop(0)
            for member in members:
                action(member, process_set)
            # Before the next step, which may be SIGKILL.
            self._stop_running(process_set)
        self._stop_running(process_set)
        if now >= self._end:
            return None
        return self._steps[0][0] if self._steps else self._end

    def _expect_end(self, member: Member, _: ProcSet) -> None:
        self._running.append(member)

    def _stop_running(self, process_set: ProcSet) -> None:
        """Send SIGTERM to those that owe no answer, and no description of their failure."""
        waiting = []
        for member in self._running:
            if member.owes_answer or member.is_describing:
                waiting.append(member)
            else:
                member.signal(process_set, STOP)
        self._running = waiting
