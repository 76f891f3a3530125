"""
What `join` raises, and the fate of each rank that comes with it.

Message texts are those of `torch.multiprocessing`, because people match on them.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any, Self, cast

__all__ = [
    "Fate",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
]


# What a process brings upon itself. Somebody else can send these signals too, but does not.
_OWN_SIGNALS = frozenset(
    {
        "SIGABRT",
        "SIGALRM",
        "SIGBUS",
        "SIGFPE",
        "SIGILL",
        "SIGPIPE",
        "SIGPROF",
        "SIGSEGV",
        "SIGSYS",
        "SIGTRAP",
        "SIGVTALRM",
        "SIGXCPU",
        "SIGXFSZ",
    }
)


@dataclass(frozen=True, kw_only=True)
class Fate:
    """
    How one rank ended, or that it has not.

    Attributes:
        index: the rank.
        pid: its process id.
        error: name of the type of the exception that it reported, or None.
        exit_code: its exit code; None when a signal ended it, when it has not ended, and when
            somebody else collected its status.
        signal_name: name of the signal that ended it, or None.
        core_dumped: whether the system wrote a core dump.
        ended: False for a rank that could not be ended and was abandoned.
        refused: why the system refused to signal it, or None.
        stopped: whether the launcher had told it to stop by then.
        done: whether it reported that its function had returned.
        out_of_memory: whether it was likely killed by the system because memory was short: by a
            SIGKILL that the launcher has not sent, while the count of such kills in the launcher's
            control group went up (Linux).
        run_time: seconds from its start, or from the making of a context by hand, to its end; None
            if it has not ended.
        failed_after: seconds from there to its failure, None for none. A rank that made no report
            counts from when it was last known to be well.
        user_time, system_time: seconds of CPU, of the rank and the children that it waited for.
        max_rss: largest resident set, in bytes.
        stack: the stacks of all its threads as `faulthandler` has them, the main thread last: those
            at its crash, or those at the moment when the launcher was about to stop it; or None.
        answered: whether its interpreter took notice when the launcher asked for them; None if it
            was not asked. One that did not is stuck in C code if it has a stack.

    Times and size are zero where somebody else has collected the exit status, be it
    `multiprocessing` while it started the next rank by `fork`.
    """

    index: int
    pid: int
    error: str | None = None
    exit_code: int | None = None
    signal_name: str | None = None
    core_dumped: bool = False
    ended: bool = True
    refused: str | None = None
    stopped: bool = False
    done: bool = False
    out_of_memory: bool = False
    run_time: float | None = None
    failed_after: float | None = None
    user_time: float = 0.0
    system_time: float = 0.0
    max_rss: int = 0
    stack: str | None = None
    answered: bool | None = None

    @property
    def state(self) -> str:
        """Its end as a word: done, raised, exited, killed, unknown or abandoned."""
        if not self.ended:
            return "abandoned"
        if self.error is not None:
            return "raised"
        if self.signal_name is not None:
            return "killed"
        if self.done and not self.exit_code:
            return "done"
        return "unknown" if self.exit_code is None else "exited"

    @property
    def ended_by(self) -> str | None:
        """
        Who ended it: itself, launcher or other; None if that is unknown, or it has not ended.

        A crash is its own doing. A signal that the launcher has not sent is another's, although a
        process can also send one to itself.
        """
        if self.state in {"abandoned", "unknown"}:
            return None
        if self.stopped:
            return "launcher"
        killed = self.signal_name is not None and self.error is None
        return "other" if killed and self.signal_name not in _OWN_SIGNALS else "itself"

    def describe(self) -> str:
        """Return how it ended, in words, without rank and pid."""
        if not self.ended:
            why = f" ({self.refused})" if self.refused else ""
            return f"could not be ended{why} and was abandoned"
        if self.error is not None:
            how = f"raised {self.error}"
        elif self.signal_name is not None:
            how = f"ended by signal {self.signal_name}"
            how += ", core dumped" if self.core_dumped else ""
            how += ", likely because memory was short" if self.out_of_memory else ""
        elif self.exit_code is None:
            how = "done" if self.done else "ended, reaped elsewhere, exit status unknown"
        elif self.exit_code == 0:
            how = "done" if self.done else "exited with code 0"
        else:
            how = f"exited with code {self.exit_code}"
        return f"{how}, stopped by the launcher" if self.stopped else how


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers in short: `0, 2-5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def ranks_in_words(ranks: list[int]) -> str:
    """Return ascending ranks in short: `ranks 0, 2-5`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {_ranges(ranks)}"


def describe_fates(fates: tuple[Fate, ...]) -> str:
    """Return one line for each different fate, with the ranks that share it."""
    groups: dict[str, list[int]] = {}
    for fate in fates:
        groups.setdefault(fate.describe(), []).append(fate.index)
    lines = (f"  {ranks_in_words(ranks)}: {how}" for how, ranks in groups.items())
    return "\n".join(["How each rank ended:", *lines])


@functools.cache
def _combine(plain: type[ProcessException], torchs: type[Exception]) -> type[ProcessException]:
    namespace = {
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
        "_plain": plain,
    }
    return cast("type[ProcessException]", type(plain.__name__, (plain, torchs), namespace))


def _class_to_raise(plain: type[ProcessException]) -> type[ProcessException]:
    """
    Return a class that torch's own `except` clauses catch too, where torch is loaded.

    An `except` clause looks at real base classes only, so registering does not help.
    """
    module = sys.modules.get("torch.multiprocessing.spawn")
    torchs = getattr(module, plain.__name__, None)
    if not (isinstance(torchs, type) and issubclass(torchs, Exception)):
        return plain
    # Mypy doubts that classes are hashable.
    return plain if issubclass(plain, torchs) else _combine(plain, torchs)  # type: ignore[arg-type]


class ProcessException(Exception):
    """
    A rank failed.

    Attributes:
        msg: the whole message, as torch words it.
        error_index: the rank that failed first.
        pid: its process id; also called `error_pid`.
        fates: how each rank ended, in the order of the ranks; empty if not known.

    Instances pickle with all their fields. Where torch has been imported, they are also instances
    of torch's exception of the same name.
    """

    _plain: type[ProcessException]
    fates: tuple[Fate, ...]

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        return cast("Self", super().__new__(_class_to_raise(cls)))

    def __init__(self, msg: str, error_index: int, pid: int) -> None:
        # Not super(): torch's class, where there is one, is next in line.
        Exception.__init__(self, msg)
        self.msg = msg
        self.error_index = error_index
        self.pid = pid
        self.fates = ()

    @property
    def error_pid(self) -> int:
        return self.pid

    @property
    def stacks(self) -> dict[int, str]:
        """The stacks of the ranks that have some; see `Fate.stack`."""
        return {fate.index: fate.stack for fate in self.fates if fate.stack is not None}

    def _arguments(self) -> tuple[Any, ...]:
        return (self.msg, self.error_index, self.pid)

    def __reduce__(self) -> tuple[Any, ...]:
        plain = getattr(self, "_plain", type(self))
        return plain, self._arguments(), self.__dict__


class ProcessRaisedException(ProcessException):
    """
    A rank's function raised.

    The exception itself is the `__cause__` where it could be pickled and unpickled.

    Attributes:
        error_type: qualified name of the exception's type.
        error_message: its `str()`.
        error_traceback: the traceback as text, with notes, causes and groups.

    The first two are None where the rank told nothing but the traceback.
    """

    def __init__(
        self,
        msg: str,
        error_index: int,
        pid: int,
        *,
        error_type: str | None = None,
        error_message: str | None = None,
        error_traceback: str | None = None,
    ) -> None:
        super().__init__(msg, error_index, pid)
        self.error_type = error_type
        self.error_message = error_message
        self.error_traceback = error_traceback


class ProcessExitedException(ProcessException):
    """
    A rank ended without having completed its function.

    Attributes:
        exit_code: its exit code, negative for a signal as in `multiprocessing`; None when somebody
            else collected the status.
        signal_name: name of the signal that ended it, or None.
    """

    def __init__(
        self,
        msg: str,
        error_index: int,
        pid: int,
        exit_code: int | None,
        signal_name: str | None = None,
    ) -> None:
        super().__init__(msg, error_index, pid)
        self.exit_code = exit_code
        self.signal_name = signal_name

    def _arguments(self) -> tuple[Any, ...]:
        return (*super()._arguments(), self.exit_code, self.signal_name)


for _public in (Fate, ProcessException, ProcessRaisedException, ProcessExitedException):
    _public.__module__ = "flamespawn"
