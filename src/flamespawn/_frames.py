"""
The frames that reports travel in; shared by a rank, which writes, and the launcher, which reads.

A frame is a header and a body. The header names the rank, its pid and the time at which the rank
made the report; the body of a failure holds five fields, each preceded by its length.

Between two frames there may be text of faulthandler, which knows nothing of frames.

Every rank imports this module: it must stay small, and does without `struct`.
"""

# No text that faulthandler writes has the first of these bytes in it.
MAGIC = b"\xffFSR"
# Magic, kind, rank, pid, CLOCK_MONOTONIC in ns (one clock for all processes of a host), body size.
HEADER_SIZE = 32

STARTED, DONE, EXITING, FAILED, RETURNED, ANSWERED, FAILING = range(7)

CODE_SIZE = 8
LENGTH_SIZE = 8

# A text that is longer is cut in the middle, and an exception whose pickle is longer is left out.
MAX_FIELD = 256 << 20


def pack(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little", signed=True)


def unpack(buffer: "bytes | bytearray | memoryview", start: int, size: int) -> int:
    return int.from_bytes(buffer[start : start + size], "little", signed=True)


def pack_header(kind: int, rank: int, pid: int, time_ns: int, size: int) -> bytes:
    fields = (pack(kind, 4), pack(rank, 4), pack(pid, 4), pack(time_ns, 8), pack(size, 8))
    return b"".join((MAGIC, *fields))


def unpack_header(
    buffer: "bytes | bytearray | memoryview", start: int
) -> "tuple[int, int, int, int, int] | None":
    """Return kind, rank, pid, time and size of the body; None if this is not the start of one."""
    if buffer[start : start + len(MAGIC)] != MAGIC:
        return None
    return (
        unpack(buffer, start + 4, 4),
        unpack(buffer, start + 8, 4),
        unpack(buffer, start + 12, 4),
        unpack(buffer, start + 16, 8),
        unpack(buffer, start + 24, 8),
    )
