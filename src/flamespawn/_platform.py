"""What this system offers. The only module that asks which system it is."""

from __future__ import annotations

import functools
import signal

from flamespawn import _native


@functools.cache
def features() -> int:
    """Return the features of the system as `_native` knows them, tried out once."""
    return _native.probe()


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"<Unknown signal {number}>"
