"""
The rank's end of its report pipe.

Every rank imports this module: what only failures need is imported when one happens.
"""

import os
import time

from flamespawn import _stack_writer
from flamespawn._frames import (
    ANSWERED,
    CODE_SIZE,
    DONE,
    EXITING,
    FAILED,
    FAILING,
    LENGTH_SIZE,
    MAX_FIELD,
    RETURNED,
    STARTED,
    pack,
    pack_header,
)
from flamespawn._platform import here

_SMALL = 4096

# After one of these nothing follows.
_FINAL = (DONE, EXITING, FAILED)


def is_own(error: OSError) -> bool:
    """Return whether a call of this module failed, and not a signal handler that ran meanwhile."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals is globals()


def _encode(text: str) -> bytes:
    data = text.encode(errors="backslashreplace")
    if len(data) <= MAX_FIELD:
        return data
    half = MAX_FIELD // 2
    left_out = f"\n[... {len(data) - 2 * half} bytes left out ...]\n"
    return data[:half] + left_out.encode() + data[-half:]


def _pickle_if_portable(exception: BaseException) -> bytes:
    """Return the pickle of an exception that survives a round trip, or nothing."""
    import pickle

    try:
        data = pickle.dumps(exception)
        survives = type(pickle.loads(data)) is type(exception)
    except BaseException:  # noqa: BLE001 - whatever the class does, the text is sent
        return b""
    return data if survives and len(data) <= MAX_FIELD else b""


def _describe(exception: BaseException) -> "tuple[str, str, str]":
    """Return type name, message and traceback, whatever the exception's methods do."""
    import traceback

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

    def started(self, question: int = 0) -> None:
        """Say so, and by which signal this rank can be asked for its stacks; 0 for none."""
        self._send(STARTED, pack(question, CODE_SIZE))

    def returned(self) -> None:
        self._send(RETURNED)

    def done(self) -> None:
        self._send(DONE)

    def exiting(self, code: int, message: str = "") -> None:
        self._send(EXITING, pack(code, CODE_SIZE), _encode(message))

    def failed(self, exception: BaseException) -> None:
        # Whoever fails while this one is still being described has failed later.
        failed_at = time.perf_counter_ns()
        self._send(FAILING, time_ns=failed_at)
        name, message, text = _describe(exception)
        fields = [_encode(part) for part in (name, message, text, here.host_name())]
        fields.append(_pickle_if_portable(exception))
        lengths = (pack(len(field), LENGTH_SIZE) for field in fields)
        parts = (part for pair in zip(lengths, fields) for part in pair)
        self._send(FAILED, *parts, time_ns=failed_at)

    def arm(self) -> int:
        """Have stacks written into the pipe; return the signal by which to ask, or 0."""
        return _stack_writer.arm(self._fd, self.answered)

    def answered(self) -> None:
        """Say that the main thread has come back to the interpreter; fn is in the middle of it."""
        try:
            self._send(ANSWERED)
        except OSError as error:
            # Nobody listens, or fn has closed the pipe. That is no business of fn, which goes on.
            if not is_own(error):
                raise

    def _send(self, kind: int, *parts: bytes, time_ns: int = 0) -> None:
        if kind in _FINAL:
            _stack_writer.disarm()
        if not os.path.samestat(os.fstat(self._fd), self._pipe):
            # The function has closed the pipe and opened something of its own in its place.
            import errno

            raise OSError(errno.EBADF, "the report pipe was closed")
        size = sum(map(len, parts))
        time_ns = time_ns or time.perf_counter_ns()
        header = pack_header(kind, self._rank, os.getpid(), time_ns, size)
        # A small report goes out in one write, a large one without another copy of it.
        whole = size <= _SMALL
        for part in (b"".join((header, *parts)),) if whole else (header, *parts):
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
