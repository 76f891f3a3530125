"""What the fate of a rank may be, and the exception that names it."""

from __future__ import annotations

import signal
from typing import Any

from chaos.notes import Notes
from chaos.plan import SUCCESSES, RankPlan

# By which signal a rank ends of its own accord.
_SIGNALS = {
    "segfault": "SIGSEGV",
    "abort": "SIGABRT",
    "sigkill": "SIGKILL",
    "sigterm": "SIGTERM",
}
_LAUNCHERS = {"SIGTERM", "SIGKILL"}
_HUGE = 10


def is_success(fate: dict[str, Any]) -> bool:
    return bool(fate["done"] and fate["exit_code"] == 0)


def describe(fate: dict[str, Any]) -> str:
    """Return the kind of a fate, for statistics."""
    if is_success(fate):
        return "completed"
    if fate["stopped"]:
        return "stopped"
    if fate["error"] is not None:
        return "raised"
    return "signal" if fate["signal_name"] is not None else "exit"


def exit_code(plan: RankPlan) -> int:
    """Return the exit code that a rank gives itself."""
    codes = {"exit": plan.argument & 255, "os_exit": plan.argument & 255, "os_exit_0": 0}
    return codes.get(plan.final, 0 if plan.final in SUCCESSES else 1)


def hangs_at_exit(plan: RankPlan, rank: int, notes: Notes) -> bool:
    """Whether nothing but a kill can end the exit handlers of a rank."""
    wakes = "raise_on_sigterm" in notes.acts[rank] or notes.blows["all"]
    return plan.at_exit == "hang" and not wakes


def may_complete(plan: RankPlan, rank: int, notes: Notes, stack: str | None = None) -> bool:
    """
    Whether a rank has done what makes it a success, if nothing has ended it after that.

    Args:
        plan: of the rank.
        rank: its number.
        notes: of the job.
        stack: what it said when it was asked for its stack. No frame is around that, and what it
            writes just then is a part of it rather than rubbish.
    """
    reached = "final" in notes.ranks[rank]
    taken = "rubbish" in (stack or "") and not notes.acts[rank].keys() & {"close_fds", "truncated"}
    fits = plan.final in SUCCESSES and (taken or not plan.tampers)
    return reached and fits and not hangs_at_exit(plan, rank, notes)


def contradiction(plan: RankPlan, rank: int, fate: dict[str, Any], notes: Notes) -> str:
    """Return why this cannot be the fate of a rank, or nothing."""
    if not fate["ended"]:
        return "abandoned"
    if rank in notes.pids and notes.pids[rank] != fate["pid"]:
        return f"pid {fate['pid']} is not {notes.pids[rank]}"
    if is_success(fate):
        fits = may_complete(plan, rank, notes, fate["stack"])
        return "" if fits else "a success, but it did not complete"
    if fate["error"] is not None:
        return _wrong_error(plan, rank, fate["error"], notes)
    if fate["signal_name"] is not None:
        return _wrong_signal(plan, rank, fate["signal_name"], notes)
    return _wrong_code(plan, rank, fate, notes)


def _wrong_error(plan: RankPlan, rank: int, error: str, notes: Notes) -> str:
    if "truncated" in notes.acts[rank]:
        # Whatever came next was read as the rest of that report.
        return ""
    if error == "KeyboardInterrupt":
        return "" if notes.blows["all"] else "interrupted by nobody"
    if error == "chaos.acts.Victim":
        return "" if "raise_on_sigterm" in notes.acts[rank] else "raised in a handler it has not"
    if error == "ValueError" and plan.final in {"raise", "raise_huge"}:
        return "" if "final" in notes.ranks[rank] else "raised before it did"
    return f"raised {error}"


def _wrong_signal(plan: RankPlan, rank: int, name: str, notes: Notes) -> str:
    sent = {signum for _, signum in (*notes.blows[rank], *notes.blows["all"])}
    reached = "final" in notes.ranks[rank]
    if name in _LAUNCHERS or signal.Signals[name] in sent:
        return ""
    if reached and _SIGNALS.get(plan.final) == name:
        return ""
    return f"ended by {name}, which nobody sent"


def _wrong_code(plan: RankPlan, rank: int, fate: dict[str, Any], notes: Notes) -> str:
    code = fate["exit_code"]
    if code is None:
        return "an unknown exit code"
    allowed = set()
    if "final" in notes.ranks[rank]:
        allowed.add(exit_code(plan))
        if plan.tampers:
            # Whether it can say that it is done, and what becomes of it if not.
            allowed |= {0, 1}
    if notes.blows["all"]:
        allowed |= {1, 130}
    if "raise_on_sigterm" in notes.acts[rank]:
        allowed.add(1)
    return "" if code in allowed else f"exit code {code}, not one of {allowed}"


def mismatch(plan: RankPlan, error: dict[str, Any], notes: Notes) -> str:
    """Return what in an exception does not fit the fate of the rank that it names."""
    rank = error["index"]
    fate = error["fates"][rank]
    if error["pid"] != fate["pid"]:
        return f"pid {error['pid']} is not {fate['pid']}"
    if (error["type"] == "ProcessRaisedException") != (fate["error"] is not None):
        return f"{error['type']} for a rank that has the error {fate['error']}"
    if error["type"] == "ProcessRaisedException":
        return _wrong_report(plan, error)
    code = error["exit_code"]
    name = error["signal_name"]
    own = exit_code(plan) if plan.final == "exit" and "final" in notes.ranks[rank] else None
    if name is None and code not in {fate["exit_code"], own}:
        return f"exit code {code} is not {fate['exit_code']}"
    if name is not None and (name != fate["signal_name"] or code != -signal.Signals[name]):
        return f"signal {name} ({code}) is not {fate['signal_name']}"
    text = f"process {rank} terminated with " + (
        f"exit code {code}" if name is None else f"signal {name}"
    )
    return "" if error["text"] == text else f"the text is {error['text']!r}"


def _wrong_report(plan: RankPlan, error: dict[str, Any]) -> str:
    head = f"\n\n-- Process {error['index']} terminated with the following error:\n"
    if not error["text"].startswith(head):
        return f"the text begins with {error['text'][:100]!r}"
    if error["error_type"] != "ValueError" or plan.tampers:
        return ""
    if error["error_size"] != max(plan.argument, _HUGE):
        return f"a message of {error['error_size']} characters"
    return "" if error["cause"] == "ValueError" else f"its cause is {error['cause']}"
