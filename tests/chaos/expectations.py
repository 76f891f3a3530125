"""
What is promised, and what is not promised yet.

What is not promised is counted as a gap and never hidden; once it is, one constant makes a fault
of it.
"""

from __future__ import annotations

# However the launcher dies, ranks and what they have started are gone within SETTLE seconds.
GUARDED = True

# What a failed or stopped rank has started is gone when `join` raises.
SWEPT = True

# A launcher that exits without having joined stops its ranks.
EXIT_STOPS_RANKS = True

SETTLE = 1.0
