"""What the ranks of start.py and payload.py run if they need no package; it imports nothing."""


def noop(_rank: int) -> None:
    """Do nothing."""


def take(rank: int, data: bytes, size: int) -> None:
    """Check that the bytes have arrived."""
    if len(data) != size:
        msg = f"rank {rank} got {len(data)} bytes instead of {size}"
        raise ValueError(msg)
