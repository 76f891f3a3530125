"""Functions that processes of `test_mp_context.py` run; it imports no more than they need."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any

import flamespawn

FOREVER = 600


def nothing(*args: object) -> None:
    pass


def started_by() -> str:
    """Return who has started this process."""
    ours = any("--flamespawn-rank" in word for word in sys.orig_argv)
    return "flamespawn" if ours else "multiprocessing"


def wait_for(pipe: Connection) -> None:
    """Wait until somebody sends something, or nobody is left who could."""
    with contextlib.suppress(EOFError):
        pipe.recv()


def announce_and_wait(pipe: Connection) -> None:
    pipe.send(os.getpid())
    wait_for(pipe)


def announce_and_sleep(pipe: Connection) -> None:
    pipe.send(os.getpid())
    time.sleep(FOREVER)


def wait_and_exit(pipe: Connection, code: object) -> None:
    wait_for(pipe)
    sys.exit(code)


def fail() -> None:
    raise ValueError("no data")


def raise_at_exit() -> None:
    atexit.register(fail)


class Broken:
    """Cannot be unpickled."""

    def __reduce__(self) -> Any:
        return fail, ()


class Refusing:
    """Cannot be pickled, for a reason of its own."""

    def __reduce__(self) -> Any:
        raise FileNotFoundError("no such thing")


def send_call(pipe: Connection, function: Any, *args: Any) -> None:
    pipe.send(function(*args))


def signal_parent_when_told(pipe: Connection) -> None:
    wait_for(pipe)
    os.kill(os.getppid(), signal.SIGUSR1)
    # One that comes just before the parent waits does not end its wait.
    while not pipe.poll(0.2):
        os.kill(os.getppid(), signal.SIGUSR1)
    wait_for(pipe)


def leave_fork(pipe: Connection) -> None:
    """End while a forked child still holds every descriptor of this process."""
    pid = os.fork()
    if pid == 0:
        wait_for(pipe)
        os._exit(0)
    pipe.send(pid)


class Subclass(flamespawn.get_context().Process):
    """As users write it, with state of its own and no target."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(name="mine", daemon=True)
        self.pipe = pipe

    def run(self) -> None:
        self.pipe.send((type(self).__name__, self.name, self.daemon, started_by()))
        super().run()


def write_at_the_end(path: str) -> None:
    """Leave as much as possible to what happens when a process ends."""

    def write(text: str) -> None:
        with open(path, "a") as file:
            file.write(f"{text}\n")

    def run() -> None:
        threading.main_thread().join()
        write("thread")

    atexit.register(write, "atexit")
    util.Finalize(None, write, args=("finalizer",), exitpriority=1)
    threading.Thread(target=run).start()
    threading.Thread(target=time.sleep, args=(FOREVER,), daemon=True).start()
    sys.stdout.write("no newline")


# -------------------------------------------------------------------------------- what a child sees


def describe() -> dict[str, Any]:
    me: Any = multiprocessing.current_process()
    parent: Any = multiprocessing.parent_process()
    return {
        "name": me.name,
        "daemon": me.daemon,
        "pid": me.pid == os.getpid(),
        "parent": (parent.name, parent.pid, parent.is_alive(), parent.exitcode),
        "method": multiprocessing.get_start_method(),
        "argv": sys.argv,
        "input": sys.stdin.read(),
        "authkey": bytes(me.authkey),
        "threads": threading.active_count(),
        "children": multiprocessing.active_children(),
    }


def send_lineage(pipe: Connection, context: Any, depth: int, *names: str) -> None:
    """Let a child of a child, as deep as asked, send the names of all; each passes a code on."""
    names = (*names, f"{multiprocessing.current_process().name} of {started_by()}")
    if depth:
        process = context.Process(target=send_lineage, args=(pipe, context, depth - 1, *names))
        process.start()
        process.join()
        sys.exit(process.exitcode + 1)
    pipe.send(names)


def default_lineage(depth: int) -> list[tuple[str, str]]:
    """Return who has started this process and children of children, all by the default method."""
    me = (started_by(), multiprocessing.get_start_method())
    if not depth:
        return [me]
    with ProcessPoolExecutor(1) as executor:
        return [me, *executor.submit(default_lineage, depth - 1).result()]


def put_lineage(queue: Any, depth: int) -> None:
    queue.put(default_lineage(depth))


def put_view(queue: Any) -> None:
    queue.put([multiprocessing.get_start_method()])


def wait_for_end_of_parent(pipe: Connection) -> None:
    parent: Any = multiprocessing.parent_process()
    pipe.send(os.getpid())
    parent.join()
    pipe.send((parent.is_alive(), parent.pid))


def start_two_and_die(pipe: Connection, context: Any, other: Connection, method: str) -> None:
    """Leave an orphan, and another one that was started later and outlives it."""
    context.Process(target=wait_for_end_of_parent, args=(pipe,)).start()
    wait_for(pipe)
    context = context.get_context(None if method == "same" else method)
    context.Process(target=announce_and_wait, args=(other,)).start()
    wait_for(pipe)
    os._exit(0)


def try_to_start(context: Any) -> str:
    try:
        context.Process(target=nothing).start()
    except AssertionError as error:
        return str(error)
    return "started"


# ------------------------------------------------------------------------------ what becomes shared


def use_all(
    queue: Any, lock: Any, semaphore: Any, event: Any, condition: Any, barrier: Any, *memory: Any
) -> None:
    value, array = memory
    with lock:
        value.value += 1
    array[0] = 2.5
    semaphore.acquire()
    barrier.wait()
    with condition:
        condition.notify()
    queue.put(os.getpid())
    event.wait()


def fill(mapping: Any, sequence: Any, queue: Any, number: int) -> None:
    mapping[number] = os.getpid()
    sequence.append(number)
    queue.put(number)


class Counter:
    """Lives in the process of a manager."""

    def __init__(self) -> None:
        self._value = 0

    def increment(self) -> None:
        self._value += 1

    def value(self) -> int:
        return self._value

    def started_by(self) -> str:
        return started_by()


def count(counter: Any) -> None:
    counter.increment()


def double(numbers: Any) -> None:
    for index, number in enumerate(numbers):
        numbers[index] = 2 * number
    numbers.shm.close()


# --------------------------------------------------------------------------------- pools, executors


def square(number: int) -> int:
    return number * number


def identify(_: object = None) -> tuple[int, str]:
    return os.getpid(), started_by()


_value: object = None


def keep(value: object) -> None:
    global _value  # noqa: PLW0603 - that is what initializers do
    _value = value


def set_and_sleep() -> None:
    """Set the event that was kept, and never end."""
    event: Any = _value
    event.set()
    time.sleep(FOREVER)


def kept(_: object = None) -> object:
    return _value


class Numbers:
    """A dataset that says who has started the process that reads it."""

    def __init__(self, culprit: int) -> None:
        self.culprit = culprit

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[int, bool]:
        if index == self.culprit:
            os._exit(3)
        return index, started_by() == "flamespawn"


def load_all(context: Any, culprit: int = -1) -> list[tuple[list[int], list[bool]]]:
    """Return the batches of a DataLoader of torch."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Numbers(culprit), batch_size=2, num_workers=2, multiprocessing_context=context
    )
    return [(numbers.tolist(), ours.tolist()) for numbers, ours in loader]
