"""
Making signals interrupt a wait at once.

Facts about signals in CPython: the C handler only sets a flag, and Python code runs later in the
main thread. A signal that arrives after the last look at the flag, but before the wait has
reached the kernel, sets the flag and interrupts nothing; so does one that the kernel delivers to
another thread. `signal.set_wakeup_fd` closes both holes: the C handler also writes a byte to that
descriptor, which the wait watches. It can be set in the main thread only, which is the only one
that needs it.
"""

from __future__ import annotations

import threading

from flamespawn._native import ProcSet, SignalsWake


def signals_wake(process_set: ProcSet) -> SignalsWake:
    """
    Return a context manager in which any signal with a Python handler wakes `process_set.wait`.

    A descriptor that somebody else has set, such as an asyncio loop's, is put back at once: its
    bytes mean something to its owner. Then a signal still interrupts the wait, but for the holes
    above.
    """
    return SignalsWake(process_set, threading.get_ident() == threading.main_thread().ident)
