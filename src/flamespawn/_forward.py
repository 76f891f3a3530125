"""
Forwarding signals to ranks, so that a job that is to be preempted can save its state.

Facts about handlers in CPython: they can only be set in the main thread, and only there they run,
between two bytecodes or when a system call is interrupted. A handler that C code has set is not
known to Python and cannot be put back. A forked process inherits them.
"""

from __future__ import annotations

import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any

from flamespawn._lifetime import call_after_fork
from flamespawn._member import Member
from flamespawn._native import ProcSet, call_in_main_thread
from flamespawn._platform import KILL
from flamespawn._teardown import REAP_TIME

_NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
# Not every system has all of them.
_FORWARDABLE = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]
_ENDING = {"SIGTERM", "SIGHUP"}

# What a shell shows for a program that a signal has ended is this and the signal's number.
_SHELL_BASE = 128


def check_signals(value: object) -> tuple[signal.Signals, ...]:
    """
    Return the signals of `forward_signals`, each once.

    Raises:
        TypeError, ValueError: it is not a sequence of signals that can be forwarded.
        RuntimeError: there are some, and this is not the main thread.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        msg = f"forward_signals must be a sequence of signals, not {type(value).__name__}"
        raise TypeError(msg)
    chosen = []
    for item in value:
        if isinstance(item, bool) or item not in _FORWARDABLE:
            known = ", ".join(signum.name for signum in _FORWARDABLE)
            msg = f"forward_signals can contain {known}, not {item!r}"
            raise ValueError(msg)
        chosen.append(signal.Signals(item))
    if chosen and threading.current_thread() is not threading.main_thread():
        msg = "forward_signals needs the main thread, because only there handlers can be set"
        raise RuntimeError(msg)
    return tuple(dict.fromkeys(chosen))


class _Handlers:
    """The signals that are being forwarded in this process, and who had them before."""

    def __init__(self) -> None:
        self._forwarders: list[Forwarder] = []
        self._previous: dict[int, Any] = {}

    def add(self, forwarder: Forwarder) -> None:
        """
        Take the signals of *forwarder* for as long as it is there.

        Raises:
            RuntimeError: C code has set a handler.
        """
        for signum in forwarder.signals:
            if signal.getsignal(signum) is None:
                msg = f"forward_signals: the handler of {signum.name} was not set by Python code"
                raise RuntimeError(msg)
        self._forwarders.append(forwarder)
        for signum in forwarder.signals:
            if signum not in self._previous:
                self._previous[signum] = signal.getsignal(signum)
            signal.signal(signum, self)

    def __call__(self, signum: int, _frame: FrameType | None) -> None:
        """Be the handler."""
        users = [forwarder for forwarder in self._forwarders if signum in forwarder.signals]
        for forwarder in users:
            forwarder.receive(signum)
        if not users:
            # It has come between the end of a job, in another thread, and now.
            self._put_back()
            signal.raise_signal(signum)

    def remove(self, forwarder: Forwarder) -> None:
        """Put back what nobody else needs; in another thread, as soon as the main thread can."""
        if forwarder in self._forwarders:
            self._forwarders.remove(forwarder)
            if threading.current_thread() is threading.main_thread():
                self._put_back()
            else:
                # If it has too much to do, the next signal finds that nobody needs it.
                call_in_main_thread(self._put_back)

    def _put_back(self) -> None:
        needed = {signum for forwarder in self._forwarders for signum in forwarder.signals}
        for signum in self._previous.keys() - needed:
            # Unless somebody has set another one since.
            current: object = signal.getsignal(signum)
            if current is self:
                signal.signal(signum, self._previous[signum])
            del self._previous[signum]


_handlers = _Handlers()


class Forwarder:
    """
    What one group of ranks has to do with the signals that the launcher gets.

    Args:
        signals: those that are to be forwarded.

    Attributes:
        signals: the same.
        ended_by: the first that is to end the ranks, and when it came; or None.
    """

    def __init__(self, signals: Sequence[signal.Signals]) -> None:
        self.signals = signals
        self.ended_by: tuple[int, int] | None = None
        self._waiting: list[int] = []
        self._receiver: Callable[[], Callable[[int], object] | None] | None = None

    def install(self) -> None:
        """Begin: signals that come before `attach` wait for it. To be followed by `release`."""
        if self.signals:
            call_after_fork(self, Forwarder._release_in_fork)
            _handlers.add(self)

    def attach(self, receiver: Callable[[int], object]) -> None:
        """Have a method called with each signal from now on, while its object lives."""
        self._receiver = weakref.WeakMethod(receiver)
        while self._waiting:
            receiver(self._waiting.pop(0))

    def receive(self, signum: int) -> None:
        """Pass on a signal. Called by a signal handler."""
        if self.ended_by is None and signal.Signals(signum).name in _ENDING:
            self.ended_by = (signum, time.perf_counter_ns())
        receiver = self._receiver and self._receiver()
        if receiver is not None:
            receiver(signum)
        else:
            self._waiting.append(signum)

    def release(self) -> None:
        """Forward nothing any more. Signals that no rank has got are the launcher's own."""
        _handlers.remove(self)
        while self._waiting:
            signal.raise_signal(self._waiting.pop(0))

    def _release_in_fork(self) -> None:
        self._waiting.clear()
        self.release()

    def exit(self) -> SystemExit | None:
        """Return what the launcher is to exit with, if a signal has ended its ranks."""
        return None if self.ended_by is None else SystemExit(_SHELL_BASE + self.ended_by[0])


class Preemption:
    """
    The ending of ranks that have got a signal, and save their state now; see `Teardown`.

    Args:
        members: all ranks.
        began: when they have got it.
        grace_period: seconds from then to SIGKILL.
    """

    def __init__(self, members: Sequence[Member], began: int, grace_period: float) -> None:
        self._members = members
        self._kill_at = began + int(max(grace_period, 0.0) * 1e9)
        self._is_killed = False

    def hasten(self, grace_period: float) -> None:
        """Move SIGKILL forward to *grace_period* seconds from now, never back."""
        limit = time.perf_counter_ns() + int(max(grace_period, 0.0) * 1e9)
        self._kill_at = min(self._kill_at, limit)

    def advance(self, process_set: ProcSet) -> int | None:
        """Kill the ranks if that is due; return when to call again, or None."""
        if all(member.ended for member in self._members):
            return None
        now = time.perf_counter_ns()
        if not self._is_killed:
            if now < self._kill_at:
                return self._kill_at
            for member in self._members:
                member.signal(process_set, KILL)
            self._kill_at = now
            self._is_killed = True
        end = self._kill_at + int(REAP_TIME * 1e9)
        return end if now < end else None
