"""
Reports: what a rank tells the launcher, as frames on a pipe.

A frame is a header and a body. The header names the rank, its pid and the time at which the rank
made the report; the body of a failure holds five fields, each preceded by its length. Nothing in
a frame is executed by decoding it. The one pickle that a failure may carry, the exception itself,
is loaded by `Failed.load_exception` and only there.
"""

from __future__ import annotations

import errno
import os
import pickle
import socket
import struct
import time
import traceback
from dataclasses import dataclass

# Magic, kind, rank, pid, CLOCK_MONOTONIC in ns (one clock for all processes of a host), body size.
_HEADER = struct.Struct("<4sB3xIIqQ")
_MAGIC = b"FSR1"
_LENGTH = struct.Struct("<Q")
_CODE = struct.Struct("<i")

# A text that is longer is cut in the middle, and an exception whose pickle is longer is left out.
MAX_FIELD = 256 << 20
MAX_BODY = 4 * MAX_FIELD
_SMALL = 4096


@dataclass(frozen=True, kw_only=True)
class Report:
    """What all reports say: who, and when by the host's monotonic clock."""

    rank: int
    pid: int
    time_ns: int


@dataclass(frozen=True, kw_only=True)
class Started(Report):
    """The rank is about to call its function."""


@dataclass(frozen=True, kw_only=True)
class Done(Report):
    """The function returned, or raised `SystemExit` with a code that means success."""


@dataclass(frozen=True, kw_only=True)
class Exiting(Report):
    """The function raised `SystemExit` with another code, or with a message."""

    code: int
    message: str = ""


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


class CorruptReportError(ValueError):
    """What came through a report pipe is not a report."""


# ------------------------------------------------------------------------------------ rank's side


def _encode(text: str) -> bytes:
    data = text.encode(errors="backslashreplace")
    if len(data) <= MAX_FIELD:
        return data
    half = MAX_FIELD // 2
    left_out = f"\n[... {len(data) - 2 * half} bytes left out ...]\n"
    return data[:half] + left_out.encode() + data[-half:]


def _pickle_if_portable(exception: BaseException) -> bytes:
    """Return the pickle of an exception that survives a round trip, or nothing."""
    try:
        data = pickle.dumps(exception)
        survives = type(pickle.loads(data)) is type(exception)
    except BaseException:  # noqa: BLE001 - whatever the class does, the text is sent
        return b""
    return data if survives and len(data) <= MAX_FIELD else b""


def _describe(exception: BaseException) -> tuple[str, str, str]:
    """Return type name, message and traceback, whatever the exception's methods do."""
    kind = type(exception)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _full_name(kind)
    try:
        message = str(exception)
    except BaseException as error:  # noqa: BLE001 - a broken __str__ hides nothing else
        message = f"<str() of the exception raised {type(error).__qualname__}>"
    try:
        text = "".join(traceback.format_exception(exception))
    except BaseException as error:  # noqa: BLE001 - as above
        text = f"<the traceback could not be formatted: {type(error).__qualname__}>\n"
        text += f"{name}: {message}\n"
    return name, message, text


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class ReportWriter:
    """
    The rank's end of its report pipe.

    Args:
        fd: the write end, in blocking mode. Not owned: it stays open until the rank exits.
        rank: the index of this rank.

    Every method raises OSError when the launcher is gone, or when something has closed the pipe.
    """

    def __init__(self, fd: int, rank: int) -> None:
        self._fd = fd
        self._rank = rank
        self._pipe = os.fstat(fd)

    def started(self) -> None:
        self._send(Started, b"")

    def done(self) -> None:
        self._send(Done, b"")

    def exiting(self, code: int, message: str = "") -> None:
        self._send(Exiting, _CODE.pack(code), _encode(message))

    def failed(self, exception: BaseException) -> None:
        name, message, text = _describe(exception)
        fields = [_encode(part) for part in (name, message, text, socket.gethostname())]
        fields.append(_pickle_if_portable(exception))
        self._send(
            Failed, *(part for field in fields for part in (_LENGTH.pack(len(field)), field))
        )

    def _send(self, kind: type[Report], *parts: bytes) -> None:
        if not os.path.samestat(os.fstat(self._fd), self._pipe):
            # The function has closed the pipe and opened something of its own in its place.
            raise OSError(errno.EBADF, "the report pipe was closed")
        size = sum(map(len, parts))
        header = _HEADER.pack(
            _MAGIC, _KINDS.index(kind), self._rank, os.getpid(), time.monotonic_ns(), size
        )
        # A small report goes out in one write, a large one without another copy of it.
        whole = size <= _SMALL
        for part in (b"".join((header, *parts)),) if whole else (header, *parts):
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(self._fd, rest) :]


# -------------------------------------------------------------------------------- launcher's side

_KINDS: list[type[Report]] = [Started, Done, Exiting, Failed]
_FAILED_FIELDS = 5
_BODY_LIMITS = {Started: 0, Done: 0, Exiting: MAX_BODY, Failed: MAX_BODY}


def _split_fields(body: memoryview) -> list[bytes]:
    fields = []
    position = 0
    while position < len(body):
        if len(body) - position < _LENGTH.size:
            msg = "a field's length is cut off"
            raise CorruptReportError(msg)
        (length,) = _LENGTH.unpack_from(body, position)
        position += _LENGTH.size
        if length > len(body) - position:
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
    if len(buffer) - position < _HEADER.size:
        return None
    magic, number, rank, pid, time_ns, size = _HEADER.unpack_from(buffer, position)
    if magic != _MAGIC or number >= len(_KINDS):
        msg = "this is not the start of a report"
        raise CorruptReportError(msg)
    kind = _KINDS[number]
    if size > _BODY_LIMITS[kind]:
        msg = f"a report of {size} bytes is over the limit"
        raise CorruptReportError(msg)
    start = position + _HEADER.size
    end = start + size
    if len(buffer) < end:
        return None
    with memoryview(buffer) as view, view[start:end] as body:
        if kind is Failed:
            return _decode_failed(body, rank, pid, time_ns), end
        if kind is Exiting:
            if size < _CODE.size:
                msg = "an exit code is cut off"
                raise CorruptReportError(msg)
            (code,) = _CODE.unpack_from(body)
            message = bytes(body[_CODE.size :]).decode(errors="replace")
            return Exiting(rank=rank, pid=pid, time_ns=time_ns, code=code, message=message), end
    return kind(rank=rank, pid=pid, time_ns=time_ns), end
