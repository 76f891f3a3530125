"""
Says what may come of a job, from its plan and from what ranks and driver have noted.

It shares no code with what it judges. A note is made just before an act, so its time is the
earliest at which a rank can have failed; the latest is when an exit handler of the rank ran after
the report, or when the driver saw the end of the process. A verdict is wrong only if it contradicts
such an interval, so a slow machine makes the oracle milder and never unjust.
"""

from __future__ import annotations

import math
import re
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from chaos import expectations, fates
from chaos.driver import MARGIN, Run
from chaos.plan import CHILDREN, SUCCESSES, Job

_REPORTING = ("raise", "raise_huge", "exit")
_ENDLESS = ("stop", "hang")
# How long a launcher that is killed takes to be gone, and a guard to notice, in nanoseconds.
_MOMENT = 50_000_000

_INTERRUPTED_DESTRUCTOR = re.compile(
    r"Exception ignored in: .*(__del__|remove|Finalize).*\n(.+\n)*KeyboardInterrupt"
)
_OWN_HANDLER = re.compile(
    r"Exception ignored in.*\n((?!Exception ignored).*\n)*?chaos\.acts\.Victim.*\n"
)
_CLOSED_TWICE = re.compile(
    r"Exception ignored in: <Finalize object.*\n(.+\n){,6}OSError: \[Errno 9\].*\n"
)


@dataclass
class Judgement:
    """
    What the oracle says.

    Attributes:
        faults: what is wrong, in words.
        gaps: how often something happened that is not promised yet.
        seen: how often what was tested.
    """

    faults: list[str] = field(default_factory=list)
    gaps: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Failure:
    """
    A failure that a rank brings about itself, or the driver.

    Attributes:
        earliest, latest: when, in nanoseconds; the latter may be infinite.
        silent: whether the launcher learns of it by the end of the process only.
    """

    earliest: float
    latest: float
    silent: bool


def own_failure(job: Job, run: Run, rank: int) -> Failure | None:
    """Return how a rank has failed without the launcher's doing, None if it has not."""
    plan = job.ranks[rank]
    notes = run.notes
    times = []
    silent = True
    latest: float = notes.ends.get(rank, math.inf)
    final = notes.ranks[rank].get("final")
    if final is not None and plan.final not in _ENDLESS:
        if plan.final in _REPORTING and not plan.tampers:
            times.append(final)
            silent = False
            latest = min(latest, notes.ranks[rank].get("left", math.inf))
        elif plan.final not in (*SUCCESSES, *_REPORTING):
            times.append(final)
        elif plan.tampers:
            # What it reports may spoil what it has truncated, at once; else its end tells.
            times.append(final)
    if "rubbish" in notes.acts[rank]:
        times.append(notes.acts[rank]["rubbish"])
    blows = [at for at, _ in (*notes.blows[rank], *notes.blows["all"])]
    if not times and not blows:
        return None
    return Failure(min(times + blows), latest, silent or bool(blows))


def _first_stop(run: Run) -> float:
    """Return when the launcher may first have been made to stop its ranks."""
    notes = run.notes
    blows = (*notes.blows["launcher"], *notes.blows["all"], *notes.stops)
    return min((at for at, _ in blows), default=math.inf)


# ------------------------------------------------------------------------------------ processes


def _was_killed(run: Run) -> bool:
    return (
        not run.hung
        and run.status == -signal.SIGKILL
        and any(signum == signal.SIGKILL for _, signum in run.notes.blows["launcher"])
    )


def _outcome(run: Run) -> dict[str, Any] | None:
    """Return the call that told the launcher how the job ended, or None."""
    for call in (run.result or {}).get("calls", []):
        if "error" in call or call["value"] is True:
            return call
        if call["name"] == "spawn" and "raised" not in call:
            return {**call, "value": True}
    return None


def _succeeded(job: Job, run: Run) -> set[int]:
    """Return the ranks that have ended well, as far as anybody knows."""
    outcome = _outcome(run)
    if outcome is not None and "error" in outcome:
        return {fate["index"] for fate in outcome["error"]["fates"] if fates.is_success(fate)}
    return {
        rank
        for rank in range(len(job.ranks))
        if fates.may_complete(job.ranks[rank], rank, run.notes)
    }


def _killed_at(run: Run) -> float:
    return max(at for at, signum in run.notes.blows["launcher"] if signum == signal.SIGKILL)


def _was_ending(job: Job, run: Run) -> bool:
    """Whether ranks may have ended before their launcher was killed, other than well."""
    killed_at = _killed_at(run)
    own = [own_failure(job, run, rank) for rank in range(len(job.ranks))]
    # A rank has to be gone within SETTLE, and until then it may also fail.
    latest = killed_at + expectations.SETTLE * 1e9
    failed = any(failure is not None and failure.earliest < latest for failure in own)
    return failed or bool(job.leaves) or _first_stop(run) < killed_at


def _stopped_with_their_launcher(job: Job, run: Run) -> set[int]:
    """Return the pids of the ranks that have stopped themselves before their guards could run."""
    notes = run.notes
    return {
        notes.pids[rank]
        for rank, plan in enumerate(job.ranks)
        if plan.final == "stop"
        and notes.pids.get(rank) in run.stopped
        and abs(notes.ranks[rank].get("final", -math.inf) - _killed_at(run)) < _MOMENT
    }


def may_stay(job: Job, run: Run) -> set[int] | None:
    """Return the pids of what may be left; None if nothing is promised."""
    notes = run.notes
    killed = _was_killed(run)
    if run.hung or (killed and not expectations.GUARDED):
        return None
    well = _succeeded(job, run)
    if (killed and _was_ending(job, run)) or not (killed or expectations.SWEPT):
        well = set(range(len(job.ranks)))
        known = Counter(notes.children.values())
        begun = Counter(
            (rank, act) for rank, acts in notes.acts.items() for act in acts if act in CHILDREN
        )
        if begun - known:
            # Ended before it could say which process it had started.
            return None
    pids = {pid for pid, (rank, _) in notes.children.items() if rank in well}
    if killed:
        pids |= _stopped_with_their_launcher(job, run)
    # The tracker lives as long as anybody holds its pipe.
    return pids | notes.helpers if pids else pids


def _judge_remains(job: Job, run: Run, judged: Judgement) -> None:
    judged.faults += [f"left the process {pid} ({name})" for pid, name in run.left.items()]
    if _was_killed(run):
        judged.seen["launcher killed"] += 1
        gap = "processes that outlived a killed launcher"
        if expectations.GUARDED:
            # Its guard is gone with the rank, and the launcher has not come to it.
            gap += ", of ranks that were gone before"
        well = _succeeded(job, run)
        stopped = _stopped_with_their_launcher(job, run)
        judged.gaps["ranks that stopped themselves as their launcher was killed"] += len(
            stopped & run.stayed.keys()
        )
        judged.gaps[gap] += sum(
            run.notes.children.get(pid, (-1,))[0] not in well
            for pid in run.stayed
            if pid not in run.notes.helpers | stopped
        )
        if not expectations.GUARDED:
            return
        if run.settled > expectations.SETTLE:
            # On a busy machine; what is not gone by far is a fault, see above.
            judged.seen[
                f"launcher killed, and all gone after more than {expectations.SETTLE:g} s"
            ] += 1
        return
    judged.faults += [f"left the file {path}" for path in run.files]
    well = _succeeded(job, run)
    for pid in run.at_outcome:
        rank, kind = run.notes.children[pid]
        if rank in well:
            judged.seen[f"left alone: {kind} of a rank that ended well"] += 1
        elif expectations.SWEPT:
            judged.faults.append(f"join left {kind} {pid} of rank {rank}, which did not end well")
        else:
            judged.gaps[f"{kind} that outlived a failed or stopped rank"] += 1


# --------------------------------------------------------------------------------------- verdict


def _judge_success(job: Job, run: Run, judged: Judgement) -> None:
    for rank in range(len(job.ranks)):
        if not fates.may_complete(job.ranks[rank], rank, run.notes):
            judged.faults.append(f"join reported success, but rank {rank} did not complete")


def _judge_failure(
    job: Job, run: Run, error: dict[str, Any], order: float, judged: Judgement
) -> None:
    """Judge an exception of `join`."""
    named = error["index"]
    all_fates = error["fates"]
    if [fate["index"] for fate in all_fates] != list(range(len(job.ranks))):
        judged.faults.append("the fates are not those of all ranks in their order")
        return
    for rank, fate in enumerate(all_fates):
        fault = fates.contradiction(job.ranks[rank], rank, fate, run.notes)
        if fault:
            judged.faults.append(f"the fate of rank {rank}: {fault}")
    fault = fates.mismatch(job.ranks[named], error, run.notes)
    if fault:
        judged.faults.append(f"the exception for rank {named}: {fault}")
    if fates.is_success(all_fates[named]):
        judged.faults.append(f"rank {named} was named, but has ended well")
    own = {rank: own_failure(job, run, rank) for rank in range(len(job.ranks))}
    stopped_at = _first_stop(run)
    mine = own[named]
    if mine is None and stopped_at == math.inf:
        judged.faults.append(f"rank {named} was named, but has not failed")
    begin = stopped_at if mine is None else min(mine.earliest, stopped_at + order * 1e9)
    for rank, other in own.items():
        if rank == named or other is None or fates.is_success(all_fates[rank]):
            continue
        exact = mine is not None and not mine.silent and not other.silent
        if other.latest + (0 if exact else order * 1e9) < begin:
            judged.faults.append(
                f"rank {named} was named, but rank {rank} failed "
                f"{(begin - other.latest) / 1e9:.3f} s or more before"
            )


def _judge_calls(job: Job, run: Run, judged: Judgement) -> None:
    """Judge what each call of the launcher did."""
    assert run.result is not None
    interrupts = run.notes.blows["launcher"] + run.notes.blows["all"]
    ends_by_interrupt = any(what == "interrupt" for _, what in run.notes.stops)
    for call in run.result["calls"]:
        what = f"{call['name']}()"
        if "unexpected" in call:
            judged.faults.append(f"{what} raised {call['unexpected']}")
        if call.get("raised") == "KeyboardInterrupt" and not (interrupts or ends_by_interrupt):
            judged.faults.append(f"{what} raised KeyboardInterrupt without a signal")
        if call.get("raised") == "BodyError" and not job.raises:
            judged.faults.append(f"{what} raised BodyError without reason")
        if call["name"] == "join" and "timeout" in call and "raised" not in call:
            seconds = (call["ended"] - call["began"]) / 1e9
            timeout = call["timeout"]
            if timeout is not None and seconds > max(timeout, 0) + MARGIN:
                judged.faults.append(f"join({timeout}) took {seconds:.1f} s")
            early = timeout is None or seconds < timeout - 0.001
            if call["value"] is False and early and not call["progress"]:
                judged.faults.append(f"join({timeout}) returned False after {seconds:.3f} s")


def _judge_agreement(run: Run, judged: Judgement) -> None:
    """All joins say the same, in all threads."""
    assert run.result is not None
    said: list[Any] = []
    for call in run.result["calls"]:
        if "seen" in call:
            said += call["seen"]
        elif "error" in call:
            said.append(call["error"])
        elif said and call["name"] in {"join", "rejoin"}:
            said.append(call["value"] if "raised" not in call else call["raised"])
        elif call["value"] is True:
            said.append(True)
    judged.faults += [
        f"one join said {said[0]}, another one {other}" for other in said[1:] if other != said[0]
    ]


def _judge_changes(run: Run, judged: Judgement) -> None:
    """Nothing in the launcher has changed."""
    assert run.result is not None
    for name, (before, after) in run.result.get("changes", {}).items():
        if name == "descriptors" and _INTERRUPTED_DESTRUCTOR.search(run.log):
            # Of the standard library; Python prints such an interrupt and loses it.
            judged.gaps["descriptors lost by an interrupted destructor"] += 1
        else:
            judged.faults.append(f"the launcher's {name} changed from {before} to {after}")


def _judge_log(job: Job, run: Run, judged: Judgement) -> None:
    # An interrupt may come where Python can only print it, whoever has sent it.
    by_itself = job.ending == "interrupt" and run.notes.stops
    interrupted = by_itself or run.notes.blows["launcher"] or run.notes.blows["all"]
    # A rank's own handler may raise where Python can only print it, and goes on.
    log = _OWN_HANDLER.sub("", run.log)
    if any("close_fds" in acts for acts in run.notes.acts.values()):
        # Of `multiprocessing`, which closes in its turn what the rank has closed.
        log = _CLOSED_TWICE.sub("", log)
    for sign in ("Exception ignored", "ResourceWarning", "Fatal Python error"):
        if sign in log and not interrupted:
            judged.faults.append(f"printed: {log[log.index(sign) :][:1000]}")


def judge(job: Job, run: Run, order: float) -> Judgement:
    """
    Judge a job that is over.

    Args:
        job: the plan.
        run: what has been seen.
        order: seconds that must lie between two failures for one of them to be surely the first;
            not needed between two that ranks report with their own time stamps.
    """
    judged = Judgement()
    judged.seen[f"style: {job.leaves or job.style}"] += 1
    judged.seen[f"start method: {job.start_method}"] += 1
    judged.seen["ranks"] += len(job.ranks)
    if run.hung:
        if run.result is not None and run.result["left"] and not expectations.EXIT_STOPS_RANKS:
            judged.gaps["exits without a join that waited for ever"] += 1
        else:
            judged.faults.append("hung")
        return judged
    _judge_remains(job, run, judged)
    if _was_killed(run):
        return judged
    if run.result is None or run.status != 0:
        judged.faults.append(f"the launcher ended with status {run.status}")
        return judged
    judged.faults += [f"a call in a thread raised {mishap}" for mishap in run.result["mishaps"]]
    _judge_changes(run, judged)
    _judge_calls(job, run, judged)
    _judge_agreement(run, judged)
    _judge_log(job, run, judged)
    outcome = _outcome(run)
    if outcome is None:
        judged.seen["outcome: none"] += 1
        return judged
    judged.faults += [f"rank {pid} was alive after the outcome" for pid in run.result["alive"]]
    if "error" not in outcome:
        judged.seen["outcome: success"] += 1
        _judge_success(job, run, judged)
    else:
        judged.seen[f"outcome: {outcome['error']['type']}"] += 1
        for fate in outcome["error"]["fates"]:
            judged.seen[f"fate: {fates.describe(fate)}"] += 1
        _judge_failure(job, run, outcome["error"], order, judged)
    return judged
