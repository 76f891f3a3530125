"""Functions of ranks that are asked for their stacks, or that crash."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import descendants
import flamespawn
import jobs
from flamespawn import _stack_writer

FOREVER = 600


def stay_in_a_lock(ready: Connection) -> None:
    lock = threading.Lock()
    lock.acquire()
    ready.send("ready")
    lock.acquire()


def stay_in_a_read(ready: Connection) -> None:
    read_end, _ = os.pipe()
    ready.send("ready")
    os.read(read_end, 1)


def stay_asleep(ready: Connection) -> None:
    ready.send("ready")
    time.sleep(FOREVER)


def stay_in_python(ready: Connection) -> None:
    ready.send("ready")
    while True:
        pass


def stay_in_c(ready: Connection) -> None:
    """Wait for a lock of the C library, which goes on after a signal; another thread tells when."""
    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(64)
    address = ctypes.addressof(mutex)
    own_file = Path(f"/proc/self/task/{threading.get_native_id()}/syscall")

    def tell() -> None:
        # The first argument of the call that the thread is in. Nobody tells when that happens.
        while own_file.read_text().split()[1:2] != [hex(address)]:
            time.sleep(0.001)
        ready.send("ready")

    libc.pthread_mutex_lock(mutex)
    threading.Thread(target=tell, daemon=True).start()
    libc.pthread_mutex_lock(mutex)


def stay_stopped(ready: Connection) -> None:
    """Stop; a child of this rank says so when it is true."""
    rank = os.getpid()
    if os.fork() == 0:
        descendants.wait_until_stopped(rank)
        ready.send("ready")
        os._exit(0)
    os.kill(rank, signal.SIGSTOP)


def stay_deep(ready: Connection, depth: int = 50) -> None:
    if depth:
        stay_deep(ready, depth - 1)
    else:
        stay_asleep(ready)


def take_the_answer_away(ready: Connection) -> None:
    """Give all signals their default actions."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    stay_asleep(ready)


def become_another_program(ready: Connection) -> None:
    """Let the end of the pipe tell that the program runs."""
    os.set_inheritable(ready.fileno(), False)
    os.execv("/bin/sleep", ["sleep", str(FOREVER)])


def stay_as(rank: int, release: Connection, ready: list[Connection], ways: list[str]) -> None:
    """Raise in rank 0 when it is released; the others stay where the ways say."""
    for index, connection in enumerate(ready):
        if index != rank - 1:
            connection.close()
    if rank == 0:
        release.recv()
        jobs.raise_value_error()
    function = globals()[ways[rank - 1]]
    function(ready[rank - 1])


def crash() -> None:
    if os.name == "nt":
        # What is wrong in a call of ctypes is an exception of Python there.
        faulthandler._read_null()
    ctypes.string_at(0)


def abort() -> NoReturn:
    os.abort()


def crash_in_a_fork() -> None:
    """Let a forked process crash, and end well."""
    pid = os.fork()
    if pid == 0:
        crash()
    os.waitpid(pid, 0)


def crash_in_a_silent_fork(times: int) -> None:
    """Let processes crash that the interpreter does not know to be forks, between reports."""
    libc = ctypes.PyDLL(None)
    for _ in range(times):
        pid = libc.fork()
        if pid == 0:
            crash()
        os.waitpid(pid, 0)


def crash_in_a_silent_fork_and_exit(rank: int) -> None:
    crash_in_a_silent_fork(1)
    os._exit(3)


def fork_a_rank_that_crashes(rank: int) -> None:
    flamespawn.start_processes(jobs.call_in, (0, crash), start_method="fork")


def ask_fork(path: str) -> None:
    """Write how a forked process ends that gets the question."""
    number = _stack_writer._Armed.signal
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(theirs, b"ready")
        time.sleep(FOREVER)
    os.read(ours, 5)
    os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    with open(path, "w") as file:
        file.write(f"{os.WIFSIGNALED(status)} {os.WTERMSIG(status) == number}")


def put_a_file_in_place(path: str) -> None:
    """Open a file where the report pipe was, fork, and write to it in the fork."""
    fd = _stack_writer._Armed.crash_fd
    file = os.open(path, os.O_RDWR)
    os.dup2(file, fd)
    pid = os.fork()
    if pid == 0:
        os.write(fd, b"from the fork")
        os._exit(0)
    os.waitpid(pid, 0)


def ask_itself(times: int) -> None:
    """Get the question over and over, without an end."""
    for _ in range(times):
        os.kill(os.getpid(), _stack_writer._Armed.signal)


def be_told_to_stop_while_answering() -> None:
    """Get SIGTERM in the middle of the answer, with a handler that raises an OSError."""

    def give_up(signum: int, frame: object) -> NoReturn:
        raise ConnectionResetError("by the handler")

    def tell(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "answered":
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, give_up)
    sys.setprofile(tell)
    os.kill(os.getpid(), _stack_writer._Armed.signal)


def ask_itself_from_a_thread(times: int) -> NoReturn:
    """Fail with a long report while another thread goes on with the question."""
    number = _stack_writer._Armed.signal
    pid = os.getpid()

    def ask() -> None:
        while True:
            os.kill(pid, number)
            # Signals that come faster than they are answered nest until the stack is full.
            time.sleep(0.001)

    threading.Thread(target=ask, daemon=True).start()
    while times:
        times -= 1
    raise ValueError("x" * (1 << 22))
