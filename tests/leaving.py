"""Functions that ranks leave in some particular way."""

from __future__ import annotations

import atexit
import bz2
import ctypes
import gzip
import io
import logging
import logging.handlers
import lzma
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import weakref
from typing import Any, NoReturn

import jobs


class Kept:
    """Says when it is deleted."""

    def __del__(self, write: Any = os.write) -> None:
        write(1, b"deleted\n")


KEPT: list[Any] = []


def when_leaving(function: Any, *args: object) -> threading.Thread:
    """Call a function in a thread once the main thread waits for threads to end."""

    def call() -> None:
        threading.main_thread().join()
        function(*args)

    thread = threading.Thread(target=call)
    thread.start()
    return thread


def prints(rank: int) -> None:
    print("out")
    print("err", file=sys.stderr)


def registers_handlers(rank: int) -> None:
    atexit.register(print, "first")
    atexit.register(print, "second")
    print("fn")


def has_threads(rank: int) -> None:
    atexit.register(print, "handler")
    when_leaving(print, "thread")
    threading.Thread(target=jobs.sleep_forever, daemon=True).start()
    print("fn")


def has_a_busy_daemon_thread(rank: int) -> None:
    def work() -> None:
        while True:
            pass

    threading.Thread(target=work, daemon=True).start()
    print("fn")


def has_finalizers(rank: int) -> None:
    atexit.register(print, "handler")
    multiprocessing.util.Finalize(None, print, args=("low",), exitpriority=1)
    multiprocessing.util.Finalize(None, print, args=("high",), exitpriority=2)
    KEPT.append(Kept)
    weakref.finalize(Kept, print, "finalized")


def has_children(rank: int) -> None:
    here, there = multiprocessing.Pipe()
    context: Any = multiprocessing.get_context(jobs.QUICK)
    context.Process(target=print_when_told, args=(here,)).start()
    context.Process(target=jobs.sleep_forever, daemon=True).start()
    there.send("go")
    print("fn")


def print_when_told(here: Any) -> None:
    here.recv()
    os.write(1, b"child\n")


def uses_the_c_library(rank: int) -> None:
    libc = ctypes.CDLL("ucrtbase" if os.name == "nt" else None)
    libc.puts(b"puts")
    for byte in b"no newline":
        libc.putchar(byte)


def has_a_log(rank: int) -> None:
    target = logging.StreamHandler(sys.stdout)
    handler = logging.handlers.MemoryHandler(1000, target=target)
    logging.getLogger().addHandler(handler)
    logging.getLogger().warning("logged")


def replaces_stdout(rank: int) -> None:
    print("before")
    sys.stdout = io.StringIO()
    print("nobody sees this")


def replaces_stdout_by_little(rank: int) -> None:
    class Little:
        def write(self, text: str) -> None:
            os.write(1, text.encode())

        def flush(self) -> None:
            os.write(1, b"flushed\n")

    print("before")
    sys.stdout = Little()  # type: ignore[assignment]
    print("little")


def removes_streams(rank: int) -> None:
    print("before")
    del sys.stdout
    sys.stderr = None  # type: ignore[assignment]


def closes_stdout(rank: int) -> None:
    print("before")
    sys.stdout.close()


def keeps_an_object(rank: int) -> None:
    print("fn")
    KEPT.append(Kept())


def keeps_files(rank: int, folder: str) -> None:
    """Leave files open that hold something, of each kind that there is."""
    for way in (open, gzip.open, bz2.open, lzma.open):
        KEPT.append(way(f"{folder}/{way.__module__}.text", "wt"))
        KEPT[-1].write("content")
        KEPT.append(way(f"{folder}/{way.__module__}", "wb"))
        KEPT[-1].write(b"content")
    KEPT.append(open(f"{folder}/both", "w+b"))  # noqa: SIM115 - that is the point
    KEPT[-1].write(b"content")


def is_stuck_in_a_pipe(rank: int) -> None:
    """Leave a daemon thread behind that writes into a pipe that nobody reads."""
    import fcntl
    import termios

    here, there = os.pipe()
    KEPT.append(os.fdopen(there, "wb"))
    started = threading.Event()

    def write() -> None:
        started.set()
        KEPT[0].write(bytes(1 << 20))

    threading.Thread(target=write, daemon=True).start()
    started.wait()
    # It has filled the pipe when this end has something to read, and as much as fits.
    while int.from_bytes(fcntl.ioctl(here, termios.FIONREAD, bytes(4)), sys.byteorder) < 1 << 16:
        os.sched_yield()
    print("fn")


def raises_in_a_handler(rank: int) -> None:
    atexit.register(print, "first")
    atexit.register(jobs.raise_value_error, "in a handler")
    atexit.register(print, "third")


def exits_in_a_handler(rank: int) -> None:
    atexit.register(print, "first")
    atexit.register(sys.exit, 3)
    atexit.register(print, "third")


def leaves_in_a_handler(rank: int, code: int = 3) -> None:
    atexit.register(os._exit, code)


def leaves_in_a_handler_with_0(rank: int) -> None:
    leaves_in_a_handler(rank, 0)


def dies_in_a_handler(rank: int) -> None:
    atexit.register(jobs.die, signal.SIGKILL)


def raises_with_handlers(rank: int) -> NoReturn:
    atexit.register(print, "handler")
    when_leaving(print, "thread")
    jobs.raise_value_error()


def exits_on_a_signal_later(rank: int) -> None:
    """Get SIGTERM, and answer it with an exit, while it waits for a thread."""
    get_later(signal.SIGTERM, SystemExit(5))


def is_interrupted_later(rank: int) -> None:
    """Get SIGINT while it waits for a thread."""
    get_later(signal.SIGINT, KeyboardInterrupt())


def is_interrupted_in_a_handler(rank: int) -> None:
    """Get SIGINT in an exit handler, where the interpreter cannot raise what it makes of it."""
    atexit.register(print, "handler")
    atexit.register(interrupt)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def get_later(signum: int, error: BaseException) -> None:
    """Get a signal, which raises an exception, while the main thread waits for another one."""
    handled = threading.Event()

    def handle(*_: object) -> NoReturn:
        signal.signal(signum, signal.SIG_IGN)
        raise error

    def send() -> None:
        # One that comes just before the main thread falls asleep does not wake it up.
        while True:
            os.kill(os.getpid(), signum)
            if handled.wait(0.2):
                return

    signal.signal(signum, handle)
    atexit.register(print, "handler")
    atexit.register(handled.set)
    when_leaving(send)


def put_much(rank: int, queue: Any) -> None:
    queue.put(b"x" * (1 << 20))


def exit_with_value(rank: int, value: object) -> NoReturn:
    sys.exit(value)  # type: ignore[arg-type]
