"""Functions that ranks of the tests run; importable, so that any start method can find them."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from flamespawn import _rank

FOREVER = 600

# The start method that takes the least time, where a test does not depend on it.
QUICK = "spawn" if os.name == "nt" else "fork"


# What Windows does not have is not asked for there.
SIGKILL = getattr(signal, "SIGKILL", None)


def nothing(rank: int, *args: object) -> None:
    pass


def wait_forever(rank: int, *args: object) -> None:
    time.sleep(FOREVER)


def wait_for_signals() -> NoReturn:
    """Wait for signals that have handlers: one that comes just before a sleep does not end it."""
    while True:
        time.sleep(0.05)


def send_rank(rank: int, pipe: Connection, *rest: object) -> None:
    pipe.send((rank, *rest))


def wait_for_release(rank: int, pipes: list[Connection]) -> None:
    """Run until the test sends something to this rank, or goes away."""
    with contextlib.suppress(EOFError):
        pipes[rank].recv()


def announce_and_wait(rank: int, pipe: Connection) -> None:
    pipe.send(rank)
    time.sleep(FOREVER)


def raise_in(rank: int, culprit: int, error: BaseException) -> None:
    """Raise in one rank while the others wait."""
    if rank == culprit:
        raise error
    time.sleep(FOREVER)


def call_in(rank: int, culprit: int, function: Any, *args: object) -> None:
    """Call a function in one rank while the others wait."""
    if rank == culprit:
        function(*args)
    else:
        time.sleep(FOREVER)


def die(signum: int) -> None:
    faulthandler.disable()
    os.kill(os.getpid(), signum)
    time.sleep(FOREVER)


def raise_value_error(message: str = "wrong value") -> NoReturn:
    raise ValueError(message)


def raise_long(size: int) -> NoReturn:
    raise ValueError("x" * size)


class Unpicklable(Exception):
    def __reduce__(self) -> NoReturn:
        msg = "cannot be pickled"
        raise TypeError(msg)


class NotUnpicklable(Exception):
    """Its pickle calls the class with one argument, which it does not take."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class OnlyInTheRank(Exception):
    """Comes out of its pickle in the process that raised it only."""

    def __init__(self, pid: int | None = None) -> None:
        if pid not in {None, os.getpid()}:
            sys.exit("not here")
        super().__init__(os.getpid())


class BrokenStr(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError


class Evil(Exception):
    """Raises a BaseException that nobody expects from a pickle."""

    def __reduce__(self) -> NoReturn:
        raise KeyboardInterrupt


def raise_unpicklable() -> NoReturn:
    raise Unpicklable("the message")


def raise_not_unpicklable() -> NoReturn:
    raise NotUnpicklable(1, 2)


def raise_only_in_the_rank() -> NoReturn:
    raise OnlyInTheRank


def raise_broken_str() -> NoReturn:
    raise BrokenStr


def raise_evil() -> NoReturn:
    raise Evil("the message")


def raise_local_class() -> NoReturn:
    class LocalError(Exception):
        pass

    raise LocalError("the message")


def raise_with_note_and_cause() -> NoReturn:
    try:
        raise_value_error("the cause")
    except ValueError as cause:
        error = RuntimeError("the effect")
        error.add_note("the note")
        raise error from cause


def raise_group() -> NoReturn:
    raise ExceptionGroup("the group", [ValueError("first"), TypeError("second")])


def raise_then_hang_at_exit() -> NoReturn:
    atexit.register(time.sleep, FOREVER)
    raise_value_error()


def raise_then_hang_in_a_thread() -> NoReturn:
    threading.Thread(target=time.sleep, args=(FOREVER,)).start()
    raise_value_error()


def ignore_sigterm(rank: int, pipe: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipe.send(rank)
    while True:
        time.sleep(FOREVER)


def ignore_sigterm_and_fail(rank: int, culprit: int) -> None:
    if rank == culprit:
        raise_value_error()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(FOREVER)


def fail_on_sigterm(rank: int, pipes: list[Connection]) -> None:
    """Rank 0 fails when released; the others answer SIGTERM with an exception of their own."""

    def raise_victim(signum: int, frame: object) -> NoReturn:
        msg = "I am only a victim"
        raise ConnectionResetError(msg)

    if rank == 0:
        pipes[0].recv()
        raise_value_error()
    signal.signal(signal.SIGTERM, raise_victim)
    pipes[rank].send("ready")
    wait_for_signals()


def fork_and_return(rank: int, pipe: Connection) -> None:
    """Return in a forked child of the rank, too; then the rank raises."""
    pid = os.fork()
    if pid == 0:
        return
    os.waitpid(pid, 0)
    raise_value_error()


def leave_grandchild(rank: int, pipe: Connection) -> None:
    """End while a forked child, whose pid is sent, still holds every descriptor of the rank."""
    pid = os.fork()
    if pid == 0:
        time.sleep(FOREVER)
        os._exit(0)
    pipe.send(pid)


def report_pipe() -> int:
    """Return the descriptor on which this rank reports."""
    frame = sys._getframe()
    while frame.f_code is not _rank.call.__code__:
        assert frame.f_back is not None
        frame = frame.f_back
    return int(frame.f_locals["report"]._fd)


def write_rubbish(data: bytes) -> NoReturn:
    """Write something else into the report pipe, and end as if all were well."""
    os.write(report_pipe(), data)
    os._exit(0)


def close_pipe_and_raise() -> NoReturn:
    os.close(report_pipe())
    raise_value_error()


def close_pipe_and_return() -> None:
    os.close(report_pipe())


def reopen_pipe_as(path: str) -> None:
    fd = os.open(path, os.O_RDWR)
    os.dup2(fd, report_pipe())
    os.close(fd)


# What a user's own wrapper does with processes and queues of multiprocessing.


def put_and_exit(queue: Any, text: str, code: int) -> None:
    queue.put(text)
    if hasattr(queue, "close") and hasattr(queue, "join_thread"):
        queue.close()
        queue.join_thread()
    sys.exit(code)


def put_and_hang(queue: Any, text: str) -> None:
    queue.put(text)
    time.sleep(FOREVER)


def exit_with(code: int) -> None:
    sys.exit(code)


def sleep_forever() -> None:
    time.sleep(FOREVER)


def write_standard_streams(rank: int, path: str) -> None:
    """Append what the standard descriptors are, and then print, which must be possible."""
    kinds = [
        os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}")
        for fd in range(3)
    ]
    line = f"{rank} {[kind or None for kind in kinds]}\n"
    with open(path, "a") as file:
        file.write(line)
    print("nobody hears this")


def exit_with_message(rank: int) -> NoReturn:
    sys.exit("the message")


def wait_for_the_end_of_the_parent(rank: int) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    os.write(1, f"{parent.is_alive()}\n".encode())
    parent.join()
    os.write(1, f"{parent.is_alive()}\n".encode())


def leave_with_rank(rank: int) -> NoReturn:
    """End in the middle of the function, with an exit code that tells the rank."""
    os._exit(rank + 1)


def print_when_released(rank: int, here: Connection) -> None:
    # All ranks read from one pipe; a message of this size arrives whole or not at all.
    assert os.read(here.fileno(), 8)
    os.write(1, b"released\n")


def end_this_thread() -> None:
    """End the calling thread and nothing else, also if it is the main thread; Linux only."""
    exit_number = {"x86_64": 60, "aarch64": 93}[platform.machine()]
    ctypes.CDLL(None).syscall(exit_number, 0)
