"""
The payload: what ranks are to run, pickled into one file in memory before any process exists.

`flamespawn._fresh` reads it. The file holds the pickle, then the buffers of large objects, each at
the start of a page, then the header; the processes map it privately, so that a large array costs
no copy for as long as nobody writes to it.
"""

from __future__ import annotations

import collections
import marshal
import mmap
import os
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, BinaryIO

from flamespawn import _multiprocessing, _unpicklable
from flamespawn._fresh import InheritedFd
from flamespawn._platform import (
    LOADED_ONCE,
    anonymous_file,
    name_full_file,
    read_at,
    seal,
    sharing,
)

# A buffer that is smaller stays in the pickle: it would waste most of the page that it is given.
_OUT_OF_BAND_FROM = 4 * mmap.PAGESIZE

# What torch says in a pickle that can be loaded once only: CUDA memory that is handed over, and
# files in shared memory whose count of users the pickle has already raised.
_CONSUMED_BY_LOADING = (b"rebuild_cuda_tensor", b"rebuild_event", b"rebuild_storage_filename")

_PLAIN = {str, bytes, int, float, bool, type(None), types.CodeType}

# What is read at a time to look for a word.
_CHUNK = 1 << 24


class _Spawning:
    """
    What the standard library's reducers ask for while a process object is being pickled.

    Attributes:
        fds: the descriptors that the processes have to inherit, under the same numbers.
    """

    DupFd = InheritedFd

    def __init__(self) -> None:
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(fd)
        return fd


def _dump(value: object, file: BinaryIO, buffer_callback: Callable[[Any], object] | None) -> None:
    # It takes no keywords; the third is `fix_imports`.
    # In no variable: an error would keep the pickler, and what it refers to, with this frame.
    sharing(ForkingPickler(file, 5, True, buffer_callback)).dump(value)


def _is_plain(value: Any) -> bool:
    """
    Return whether a fresh interpreter can read *value* without having imported anything.

    What `marshal` takes is more: of an array it makes bytes.
    """
    if type(value) is dict:
        return all(map(_is_plain, value.items()))
    if type(value) in {list, tuple}:
        return all(map(_is_plain, value))
    return type(value) in _PLAIN


class Payload:
    """
    What to run, in one sealed file in memory.

    Args:
        parts: the named objects that are pickled together, as a tuple; or one process object.
        count: the number of processes that load it.

    Attributes:
        fd: the file; owned.
        parts: for each pickle its place, its size and those of its buffers. One pickle does for all
            processes, unless it holds something that can be loaded once only.
        size: of all this.
        fds: the descriptors that the pickles mention.

    Raises:
        TypeError: something cannot be pickled; the message names it.
    """

    def __init__(self, parts: dict[str, object], *, whole: object = None, count: int = 1) -> None:
        self._named = parts
        self._value = tuple(parts.values()) if whole is None else whole
        self._spawning = _Spawning()
        self._file = anonymous_file("flamespawn")
        self.fd = self._file.fileno()
        try:
            self.parts = [self._append_pickle()]
            # Without torch in the launcher there are none of its objects.
            words = LOADED_ONCE + (_CONSUMED_BY_LOADING if "torch" in sys.modules else ())
            if count > 1 and words and self.mentions(words):
                self.parts += [self._append_pickle() for _ in range(count - 1)]
        except BaseException as error:
            if isinstance(error, OSError):
                name_full_file(error, self.fd)
            self.close()
            raise

    @property
    def fds(self) -> list[int]:
        return self._spawning.fds

    @property
    def size(self) -> int:
        return os.lseek(self.fd, 0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()

    def seal_with(self, header: dict[str, Any]) -> tuple[int, int]:
        """Append the header, after which nothing can be changed; return its place and size."""
        start = self.size
        plain = {name: value for name, value in header.items() if _is_plain(value)}
        if len(plain) < len(header):
            # Such as a path in `sys.argv`, which should hold strings only.
            rest = {name: header[name] for name in header.keys() - plain.keys()}
            plain["pickled"] = pickle.dumps(rest)
        data = marshal.dumps(plain)
        with open(self.fd, "ab", closefd=False) as file:
            file.write(data)
        seal(self.fd)
        return start, len(data)

    # ----------------------------------------------------------------------------------- pickling

    def _append_pickle(self) -> tuple[int, int, list[tuple[int, int]]]:
        """Write one pickle and its buffers; return where they are."""
        start = self.size
        buffers: list[memoryview] = []
        try:
            with open(self.fd, "ab", closefd=False) as file:
                self._pickle_to(file, buffers)
                size = file.tell() - start
            return start, size, [self._append_buffer(buffer) for buffer in buffers]
        finally:
            # Nobody can resize what they belong to, and an error would keep them with its frames.
            for buffer in buffers:
                buffer.release()

    def _pickle_to(self, file: BinaryIO, buffers: list[memoryview]) -> None:
        def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
            content = buffer.raw()
            if content.nbytes < _OUT_OF_BAND_FROM:
                return True
            buffers.append(content)
            return False

        with _multiprocessing.spawning(self._spawning):
            try:
                _dump(self._value, file, keep_in_band)
            except Exception as error:
                explained = self._explained(error)
                if explained is error:
                    raise
                raise explained from error

    def _explained(self, error: Exception) -> Exception:
        """Return the error to raise: one that says what could not be pickled."""
        if not isinstance(error, (pickle.PicklingError, TypeError, AttributeError, RecursionError)):
            # Raised by an object's own method, such as an operating system's error.
            return error

        def try_to_dump(value: object) -> None:
            with Path(os.devnull).open("wb") as nowhere:
                _dump(value, nowhere, None)

        return TypeError(_unpicklable.explain(self._named, try_to_dump, error))

    def mentions(self, words: Sequence[bytes]) -> bool:
        """Return whether the first pickle contains one of these; it may be by chance."""
        start, size, _ = self.parts[0]
        overlap = max(map(len, words)) - 1
        for first in range(start, start + size, _CHUNK):
            # A memory map has a slower search of its own.
            data = read_at(self.fd, min(_CHUNK + overlap, start + size - first), first)
            if any(word in data for word in words):
                return True
        return False

    def refers_to(self, module: str) -> bool:
        """Return whether the first pickle names something that is defined in *module*."""
        if not self.mentions([module.encode()]):
            return False
        import pickletools  # noqa: PLC0415 - it is large, and hardly ever needed

        start, size, _ = self.parts[0]
        memo: list[object] = []
        # What has been pushed last, as far as it is a text.
        pushed: collections.deque[object] = collections.deque([None, None], maxlen=2)
        for opcode, argument, _ in pickletools.genops(read_at(self.fd, size, start)):
            if opcode.name == "STACK_GLOBAL" and pushed[0] == module:
                return True
            if opcode.name == "MEMOIZE":
                memo.append(pushed[1])
            elif opcode.name in {"BINGET", "LONG_BINGET"}:
                pushed.append(memo[argument or 0])
            elif opcode.name != "FRAME":
                pushed.append(argument if isinstance(argument, str) else None)
        return False

    def _append_buffer(self, buffer: memoryview) -> tuple[int, int]:
        start = -(-self.size // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(self.fd, start)
        with open(self.fd, "ab", closefd=False) as file:
            file.write(buffer)
        return start, buffer.nbytes
