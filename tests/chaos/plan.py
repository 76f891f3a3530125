"""A job: all that is decided before anything starts. The same seed gives the same job."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field

# How a rank ends of itself, with its weight among those that fail.
FAILURES = {
    "raise": 16,
    "raise_huge": 3,
    "exit": 8,
    "os_exit": 7,
    "os_exit_0": 5,
    "segfault": 4,
    "abort": 2,
    "sigkill": 6,
    "sigterm": 5,
    "stop": 5,
    "hang": 12,
}
SUCCESSES = ("return", "exit_0")

# What a rank may do before, with its probability.
PRELUDES = {
    "ignore_sigterm": 0.12,
    "raise_on_sigterm": 0.08,
    "block_sigterm": 0.03,
    "subprocess": 0.08,
    "fork": 0.08,
    "daemonise": 0.06,
    "mp_daemon": 0.06,
    "mp_child": 0.04,
    "thread": 0.05,
}
# Not among ranks that are meant to succeed.
TAMPERING = {"close_fds": 0.06, "rubbish": 0.05, "truncated": 0.05}
CHILDREN = ("subprocess", "fork", "daemonise", "mp_daemon", "mp_child")
MULTIPROCESSING_CHILDREN = ("mp_daemon", "mp_child")

AT_EXIT = {"": 0.82, "hang": 0.1, "slow": 0.08}

STYLES = {"plain": 20, "loop": 45, "with": 20, "threads": 15}
TIMEOUTS = (None, None, None, 0.0, 0.001, 0.02, 0.1, -1.0)
GRACES = (0.0, 0.05, 0.2, 0.5, 1.0)
ENDINGS = ("stop", "terminate", "kill", "interrupt")

SUCCESS_JOBS = 0.25


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """
    What one rank does.

    Attributes:
        prelude: what it does before it waits, in this order.
        delay: seconds until it ends.
        final: how it ends.
        argument: an exit code, or the size of a message.
        at_exit: what its exit handlers do.
    """

    prelude: tuple[str, ...]
    delay: float
    final: str
    argument: int
    at_exit: str

    @property
    def tampers(self) -> bool:
        """Whether it does something to its report pipe."""
        return any(act in TAMPERING for act in self.prelude)


@dataclass(frozen=True, kw_only=True)
class Blow:
    """
    What the driver does to a job from outside.

    Attributes:
        at: seconds after the launcher is ready.
        what: `kill_rank`, `kill_launcher`, `ctrl_c` (all), `interrupt` (the launcher alone), `end`
            (the same until it has ended).
        rank, signum: of `kill_rank`.
    """

    at: float
    what: str
    rank: int = -1
    signum: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """
    One job.

    Attributes:
        style: how the launcher waits: `plain` is `join=True`, `threads` joins from several.
        late: seconds until the first join.
        timeouts: of one join after the other, round and round.
        grace: the grace period.
        patience: seconds after which the launcher ends what has not ended.
        ending: how it does that.
        raises: with style `with`, whether its block does.
        on_interrupt: what follows a KeyboardInterrupt.
        leaves: `exit` if the launcher exits without having joined, `drop` if it forgets the
            context, `` if it joins.
        rejoins: how many joins follow the last one that counts.
    """

    seed: int
    start_method: str
    daemon: bool
    ranks: tuple[RankPlan, ...]
    style: str
    late: float
    timeouts: tuple[float | None, ...]
    grace: float
    patience: float
    ending: str
    raises: bool
    on_interrupt: str
    leaves: str
    rejoins: int
    blows: tuple[Blow, ...] = field(default=())

    @property
    def is_plain(self) -> bool:
        """Whether the launcher does all in one call, so that nothing but a signal can end it."""
        return self.style == "plain" and not self.leaves

    @property
    def longest(self) -> float:
        """Seconds that the job may take on a machine that has nothing else to do."""
        acts = max(rank.delay for rank in self.ranks)
        return self.late + acts + 3 * self.patience + 2 * (self.grace + 2) + 1


def _choose(rng: random.Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _delay(rng: random.Random, longest: float) -> float:
    kind = rng.random()
    if kind < 0.25:
        return 0.0
    # Many ends that are close together, and some that are far apart.
    return round(rng.uniform(0, longest if kind > 0.7 else longest / 10), 4)


def _rank(rng: random.Random, fails: float, longest: float, *, daemon: bool) -> RankPlan:
    fails_now = rng.random() < fails
    preludes = PRELUDES | (TAMPERING if fails else {})
    prelude = [act for act, probability in preludes.items() if rng.random() < probability]
    if daemon:
        # Daemonic processes may not have children of this kind.
        prelude = [act for act in prelude if act not in MULTIPROCESSING_CHILDREN]
    rng.shuffle(prelude)
    final = _choose(rng, FAILURES) if fails_now else rng.choice(SUCCESSES)
    argument = rng.choice([1, 2, 7, 127, 255, 256 + 3, -1])
    if final == "raise_huge":
        argument = rng.choice([1 << 16, 1 << 20, 5 << 20])
    at_exit = _choose(rng, AT_EXIT)
    if not fails and at_exit == "hang":
        at_exit = "slow"
    return RankPlan(
        prelude=tuple(prelude),
        delay=_delay(rng, longest),
        final=final,
        argument=argument,
        at_exit=at_exit,
    )


def _blows(rng: random.Random, nprocs: int, longest: float) -> tuple[Blow, ...]:
    blows = []
    if rng.random() < 0.15:
        for _ in range(rng.choice([1, 1, 2])):
            signum = rng.choice([signal.SIGKILL, signal.SIGTERM])
            at = rng.uniform(0, longest)
            rank = rng.randrange(nprocs)
            blows.append(Blow(at=at, what="kill_rank", rank=rank, signum=int(signum)))
    kind = rng.random()
    if kind < 0.12:
        what = "interrupt" if rng.random() < 0.7 else "ctrl_c"
        at = rng.uniform(0, longest)
        blows.append(Blow(at=at, what=what))
        if rng.random() < 0.4:
            blows.append(Blow(at=at + rng.uniform(0, longest / 5), what=what))
    elif kind < 0.2:
        blows.append(Blow(at=rng.uniform(0, longest), what="kill_launcher"))
    return tuple(sorted(blows, key=lambda blow: blow.at))


def make(seed: int, longest: float) -> Job:
    """
    Return the job of a seed.

    Args:
        seed: any number.
        longest: seconds that a rank waits at most before it ends.
    """
    rng = random.Random(seed)
    start_method = rng.choices(["fork", "spawn", "forkserver"], [55, 35, 10])[0]
    daemon = rng.random() < 0.2
    nprocs = rng.choice([1, 2, 2, 3, 3, 4, 5, 6])
    fails = 0.0 if rng.random() < SUCCESS_JOBS else rng.choice([0.2, 0.4, 0.7, 1.0])
    timeouts = [rng.choice(TIMEOUTS) for _ in range(rng.choice([1, 1, 2, 3]))]
    return Job(
        seed=seed,
        start_method=start_method,
        daemon=daemon,
        ranks=tuple(_rank(rng, fails, longest, daemon=daemon) for _ in range(nprocs)),
        style=_choose(rng, STYLES),
        late=_delay(rng, 2 * longest) if rng.random() < 0.3 else 0.0,
        timeouts=tuple(timeouts),
        grace=rng.choice(GRACES),
        patience=round(longest * rng.choice([0.3, 1.2, 1.2, 2]) + 0.2, 4),
        ending=rng.choice(ENDINGS),
        raises=rng.random() < 0.3,
        on_interrupt=rng.choice(["stop", "stop", "kill", "join"]),
        leaves=rng.choices(["", "exit", "drop"], [92, 4, 4])[0],
        rejoins=rng.choice([1, 1, 2]),
        blows=_blows(rng, nprocs, longest),
    )
