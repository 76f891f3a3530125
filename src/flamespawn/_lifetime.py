"""
What the exit of the launcher, and a fork of it, mean for what lives in it.

Facts about the end of a Python program: it waits for threads that are not daemonic, then calls what
was registered with `atexit`, last first. One of these is `multiprocessing`'s, in a process of
`multiprocessing` the only one: it calls its finalizers by their priority, sends SIGTERM to daemonic
children, and then waits for all children, for as long as they run.
"""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from collections.abc import Callable
from typing import Any

from flamespawn import _multiprocessing
from flamespawn._platform import register_at_fork

_numbers = itertools.count()
_after_fork: weakref.WeakValueDictionary[tuple[int, Callable[[Any], None]], Any] = (
    weakref.WeakValueDictionary()
)


def call_after_fork(owner: Any, function: Callable[[Any], None]) -> None:
    """
    Call `function(owner)` in every process that is forked from Python code, while *owner* lives.

    Whoever forks in C, without telling the interpreter, is found out by the process id only.
    """
    _listen_to_forks()
    _after_fork[next(_numbers), function] = owner


@functools.cache
def _listen_to_forks() -> None:
    register_at_fork(after_in_child=_call_all_after_fork)


def _call_all_after_fork() -> None:
    calls = list(_after_fork.items())
    _after_fork.clear()
    # What came last is let go of first: it may have to be put back as it was before.
    for (_, function), owner in reversed(calls):
        function(owner)


class Unjoined:
    """What is called when this process exits, before it waits for its children."""

    def __init__(self) -> None:
        self._calls: weakref.WeakKeyDictionary[
            Any, tuple[Callable[[Any], bool], Callable[[Any, bool], object]]
        ] = weakref.WeakKeyDictionary()
        self._registered_in: int | None = None

    def add(
        self,
        owner: Any,
        begin: Callable[[Any], bool],
        end: Callable[[Any, bool], object],
    ) -> None:
        """
        Have `begin(owner)` called while *owner* lives, and, if that is true, `end(owner, at_once)`.

        All begin before the first is waited for. An interrupt makes those that follow end at once.
        """
        # A process that was forked has lost what its parent had registered.
        if self._registered_in != os.getpid():
            self._calls.clear()
            _multiprocessing.call_finalizer(self._stop)
            self._registered_in = os.getpid()
        self._calls[owner] = (begin, end)

    def _stop(self) -> None:
        interrupt: KeyboardInterrupt | None = None
        begun = [(owner, end) for owner, (begin, end) in list(self._calls.items()) if begin(owner)]
        for owner, end in begun:
            try:
                end(owner, interrupt is not None)
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


unjoined = Unjoined()
