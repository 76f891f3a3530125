"""
Stacks of ranks: taking them out of what faulthandler has written, and showing those of many ranks.

Facts about the text of faulthandler: a crash starts with the line `Fatal Python error: ...`, or
with `Windows fatal exception: ...`, which is written as well if somebody handles the exception. The
threads come newest first, so that the main thread is the last; the one that writes is called the
current one, or has no name where it writes nothing but its own. The frames of a thread are
indented, the innermost comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from flamespawn import _rank, _stack_writer
from flamespawn._errors import Fate, describe_fates, ranks_in_words

_CRASH = re.compile("(?:Fatal Python error|Windows fatal exception): ")
_THREAD = re.compile(r"^(Current thread|Thread) 0x.*$|^Stack \(most recent", re.MULTILINE)
_OUR_FRAME = f'File "{_rank.__file__}"'
_ANSWERING_FRAME = f'  File "{_stack_writer.__file__}"'

# What is shown of one stack, and how many different ones are.
_MOST_FRAMES = 6
_MOST_STACKS = 5

_NO_ANSWER = "stuck in C code, or busy: its interpreter did not answer"
_NO_STACK = "no stack: it is stopped, stuck in the kernel, or blocks the signal"


def split_crash(written: bytes) -> tuple[str, str]:
    """Return what was written when the launcher asked, and what was written at a crash."""
    text = written.decode(errors="replace")
    start = max((match.start() for match in _CRASH.finditer(text)), default=len(text))
    return _tidy(text[:start]), text[start:]


def _tidy(text: str) -> str:
    """Leave out how a rank writes its stacks, and the one that is there twice."""
    _, other, rest = text.partition("\nThread 0x")
    if "\nCurrent thread 0x" in rest:
        text = other.lstrip() + rest
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(_ANSWERING_FRAME))


def _threads(text: str) -> Iterator[tuple[str, list[str]]]:
    """Return the first word for each thread, and its frames."""
    starts = [match.start() for match in _THREAD.finditer(text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=False):
        first, *lines = text[start:end].splitlines()
        frames: list[str] = []
        for line in lines:
            if not line.startswith("  "):
                break
            frames.append(line.strip())
        yield first.partition(" ")[0], frames


def _without_ours(frames: Sequence[str]) -> list[str]:
    """Leave out how the rank came to call the function."""
    for index, frame in enumerate(frames):
        if frame.startswith(_OUR_FRAME) and index > 0:
            return list(frames[:index])
    return list(frames)


def _main_thread(text: str) -> list[str]:
    threads = [frames for _, frames in _threads(text)]
    return _without_ours(threads[-1]) if threads else []


def _current_thread(text: str) -> list[str]:
    return next((_without_ours(frames) for word, frames in _threads(text) if word != "Thread"), [])


def _shown(frames: Sequence[str]) -> Iterator[str]:
    for frame in frames[:_MOST_FRAMES]:
        yield f"    {frame}"
    if len(frames) > _MOST_FRAMES:
        yield f"    ... and {len(frames) - _MOST_FRAMES} more"


def describe(fates: tuple[Fate, ...], culprit: int) -> tuple[str | None, ...]:
    """Return what is to be said about how the ranks ended, and where they were."""
    table = describe_fates(fates) if len(fates) > 1 else None
    return table, describe_crash(fates[culprit]), describe_stacks(fates)


def describe_crash(fate: Fate) -> str | None:
    """Return where a rank has crashed, or None if it is not known."""
    start = _CRASH.match(fate.stack or "")
    if fate.stack is None or start is None:
        return None
    title = fate.stack.partition("\n")[0][start.end() :]
    frames = _shown(_current_thread(fate.stack))
    return "\n".join([f"Rank {fate.index} crashed ({title}) in:", *frames])


def describe_stacks(fates: Iterable[Fate]) -> str | None:
    """Return in a few lines where the ranks were that the launcher has asked."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for fate in fates:
        if fate.answered is None or (fate.answered and fate.stack is None):
            continue
        what = "" if fate.answered else _NO_STACK if fate.stack is None else _NO_ANSWER
        frames = _main_thread(fate.stack or "")
        groups.setdefault((what, tuple(frames)), []).append(fate.index)
    if not groups:
        return None
    lines = ["Where the other ranks were, the innermost call first:"]
    # What is stuck is worth more than what waits for it.
    order = sorted(groups, key=lambda group: not group[0])
    for what, stack in order[:_MOST_STACKS]:
        lines.append(f"  {ranks_in_words(groups[what, stack])}:{what and ' ' + what}")
        lines.extend(_shown(stack))
    left = sorted(index for group in order[_MOST_STACKS:] for index in groups[group])
    if left:
        lines.append(f"  {ranks_in_words(left)}: elsewhere, see .stacks of this exception")
    return "\n".join(lines)
