"""
Reports: what a rank tells the launcher, as the launcher reads it.

Nothing in a frame is executed by decoding it. The one pickle that a failure may carry, the
exception itself, is loaded by `Failed.load_exception` and only there.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass

from flamespawn._frames import (
    CODE_SIZE,
    HEADER_SIZE,
    LENGTH_SIZE,
    MAGIC,
    MAX_FIELD,
    unpack,
    unpack_header,
)

MAX_BODY = 4 * MAX_FIELD


@dataclass(frozen=True, kw_only=True)
class Report:
    """What all reports say: who, and when by the host's monotonic clock."""

    rank: int
    pid: int
    time_ns: int


@dataclass(frozen=True, kw_only=True)
class Started(Report):
    """
    The rank is about to call its function.

    From now on the signal *question* makes it write its stacks; there is none if that is 0.
    """

    question: int


@dataclass(frozen=True, kw_only=True)
class Returned(Report):
    """The function has returned, and the rank's exit handlers are about to run."""


@dataclass(frozen=True, kw_only=True)
class Done(Report):
    """
    The function returned, or raised `SystemExit` with a code that means success.

    A rank of `spawn` says so when its exit handlers have run.
    """


@dataclass(frozen=True, kw_only=True)
class Exiting(Report):
    """The function raised `SystemExit` with another code, or with a message."""

    code: int
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Failing(Report):
    """The function has raised; `Failed` follows when the rank has described how, which may last."""


@dataclass(frozen=True, kw_only=True)
class Failed(Report):
    """The function raised."""

    error_type: str | None
    message: str | None
    traceback: str
    host: str = ""
    pickled: bytes = b""

    def load_exception(self) -> BaseException | None:
        """
        Return the exception object, or None where it does not come out here.

        Unpickling runs code of the exception's class, which may fail in the launcher although it
        worked in the rank; the text says what happened in any case.
        """
        if not self.pickled:
            return None
        try:
            loaded = pickle.loads(self.pickled)
        except (Exception, SystemExit, GeneratorExit):  # noqa: BLE001 - see above
            return None
        return loaded if isinstance(loaded, BaseException) else None


@dataclass(frozen=True, kw_only=True)
class Answered(Report):
    """The main thread has come back to the interpreter, after the rank was asked for its stacks."""


class CorruptReportError(ValueError):
    """What came through a report pipe is not a report."""


# In the order of the numbers in `_frames`.
_KINDS: list[type[Report]] = [Started, Done, Exiting, Failed, Returned, Answered, Failing]
_FAILED_FIELDS = 5
_BODY_LIMITS = {Started: CODE_SIZE, Exiting: MAX_BODY, Failed: MAX_BODY}

# What faulthandler begins with.
_DUMP_STARTS = (
    b"Fatal Python error: ",
    b"Windows fatal exception: ",
    b"Current thread ",
    b"Thread 0x",
    b"Stack (most recent call first)",
)
_LONGEST_START = max(map(len, _DUMP_STARTS))


def dump_end(buffer: bytearray, position: int, *, is_inside: bool) -> int | None:
    """
    Return where the text of faulthandler that starts at *position* ends, as far as it has arrived.

    Args:
        buffer: what has arrived.
        position: where a frame may start as well; then this is returned.
        is_inside: whether such text has been seen before, which may go on after a frame.

    Returns:
        None where too little has arrived to tell.
    """
    head = bytes(buffer[position : position + _LONGEST_START])
    if not is_inside and not head.startswith(_DUMP_STARTS):
        could_be = any(start.startswith(head) for start in _DUMP_STARTS)
        return None if could_be else position
    end = buffer.find(MAGIC[:1], position)
    return end if end >= 0 else len(buffer)


def _split_fields(body: memoryview) -> list[bytes]:
    fields: list[bytes] = []
    position = 0
    while position < len(body):
        if len(fields) == _FAILED_FIELDS:
            msg = f"a failure has more than {_FAILED_FIELDS} fields"
            raise CorruptReportError(msg)
        if len(body) - position < LENGTH_SIZE:
            msg = "a field's length is cut off"
            raise CorruptReportError(msg)
        length = unpack(body, position, LENGTH_SIZE)
        position += LENGTH_SIZE
        if not 0 <= length <= len(body) - position:
            msg = "a field is longer than its frame"
            raise CorruptReportError(msg)
        fields.append(bytes(body[position : position + length]))
        position += length
    return fields


def _decode_failed(body: memoryview, rank: int, pid: int, time_ns: int) -> Failed:
    fields = _split_fields(body)
    if len(fields) != _FAILED_FIELDS:
        msg = f"a failure has {_FAILED_FIELDS} fields, not {len(fields)}"
        raise CorruptReportError(msg)
    *texts, pickled = fields
    name, message, text, host = (field.decode(errors="replace") for field in texts)
    return Failed(
        rank=rank,
        pid=pid,
        time_ns=time_ns,
        error_type=name,
        message=message,
        traceback=text,
        host=host,
        pickled=pickled,
    )


def decode(buffer: bytearray, position: int) -> tuple[Report, int] | None:
    """
    Return the report that starts at *position* and where the next one starts.

    Returns None when the frame is not complete yet. Does not change *buffer*.

    Raises:
        CorruptReportError: these bytes are no report, however many more follow.
    """
    if len(buffer) - position < HEADER_SIZE:
        return None
    header = unpack_header(buffer, position)
    if header is None or not 0 <= header[0] < len(_KINDS):
        msg = "this is not the start of a report"
        raise CorruptReportError(msg)
    number, rank, pid, time_ns, size = header
    kind = _KINDS[number]
    if size < 0 or size > _BODY_LIMITS.get(kind, 0):
        msg = f"a report of {size} bytes is over the limit"
        raise CorruptReportError(msg)
    start = position + HEADER_SIZE
    end = start + size
    if len(buffer) < end:
        return None
    with memoryview(buffer) as view, view[start:end] as body:
        if kind is Failed:
            return _decode_failed(body, rank, pid, time_ns), end
        if kind is Exiting or kind is Started:
            if size < CODE_SIZE:
                msg = "a number is cut off"
                raise CorruptReportError(msg)
            code = unpack(body, 0, CODE_SIZE)
            if kind is Started:
                return Started(rank=rank, pid=pid, time_ns=time_ns, question=code), end
            message = bytes(body[CODE_SIZE:]).decode(errors="replace")
            return Exiting(rank=rank, pid=pid, time_ns=time_ns, code=code, message=message), end
    return kind(rank=rank, pid=pid, time_ns=time_ns), end
