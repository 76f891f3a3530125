"""What can be sent to ranks: all that multiprocessing can send, and works there."""

from __future__ import annotations

import functools
import multiprocessing
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection, Listener
from multiprocessing.shared_memory import ShareableList, SharedMemory
from typing import Any

import pytest

import flamespawn
import jobs
import payloads

N = 3


@pytest.fixture(params=["spawn", "flamespawn"])
def context(request: pytest.FixtureRequest) -> Any:
    """Run a test with what the standard library's context makes, and with what ours makes."""
    if request.param == "flamespawn":
        return flamespawn.get_context()
    return multiprocessing.get_context("spawn")


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    """Make a pipe, of which ranks get the second end."""
    here, there = multiprocessing.Pipe(duplex=False)
    with here, there:
        yield here, there


def received(here: Connection, count: int) -> list[Any]:
    """Return what ranks have sent, in the order of the alphabet."""
    return sorted((here.recv() for _ in range(count)), key=repr)


# ---------------------------------------------------------------------------------- multiprocessing


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_queues(context: Any, kind: str) -> None:
    """A queue brings objects to ranks and back from them."""
    tasks, results = getattr(context, kind)(), getattr(context, kind)()
    for number in range(N):
        tasks.put(number)

    ranks = flamespawn.spawn(payloads.take_and_answer, (tasks, results), N, join=False)

    answers = sorted(results.get() for _ in range(N))
    assert [task for task, _ in answers] == list(range(N))
    assert {pid for _, pid in answers} == set(ranks.pids())
    if kind == "JoinableQueue":
        tasks.join()
    with ranks:
        pass
    for queue in (tasks, results):
        queue.close()
        if kind != "SimpleQueue":
            queue.join_thread()


@pytest.mark.parametrize(
    ("kind", "depth"),
    [("Lock", 1), ("RLock", 2), ("Semaphore", 1), ("BoundedSemaphore", 1), ("Condition", 2)],
)
def test_locks(context: Any, kind: str, depth: int) -> None:
    """A lock lets in one rank at a time; a recursive one lets the same rank in again."""
    lock, number = getattr(context, kind)(), context.RawValue("i", 0)

    flamespawn.spawn(payloads.count_under, (lock, number, depth, 300), N)

    assert number.value == N * 300


def test_semaphore_of_two(context: Any) -> None:
    """A semaphore lets in as many ranks as it says, and no more."""
    inside, most = context.Value("i", 0), context.RawValue("i", 0)

    flamespawn.spawn(payloads.check_bound, (context.Semaphore(2), inside, most), N)

    assert inside.value == 0
    assert 1 <= most.value <= 2


def test_condition(context: Any) -> None:
    """Ranks wait for one another's notifications of a condition."""
    turn = context.RawValue("i", N - 1)

    flamespawn.spawn(payloads.wait_for_turn, (context.Condition(), turn), N)

    assert turn.value == -1


def test_event(context: Any) -> None:
    """An event set by the launcher wakes a rank, and one set by a rank wakes the others."""
    asked, answered = context.Event(), context.Event()

    ranks = flamespawn.spawn(payloads.set_or_wait, (asked, answered), N, join=False)

    assert not answered.is_set()
    asked.set()
    with ranks:
        pass
    assert answered.is_set()


def test_barrier(context: Any) -> None:
    """All ranks meet at a barrier, and each gets a place of its own."""
    arrived, places = context.Value("i", 0), context.RawArray("i", N)

    flamespawn.spawn(payloads.meet, (context.Barrier(N), arrived, places), N)

    assert sorted(places) == list(range(N))


def test_shared_values(context: Any) -> None:
    """What ranks write to Value, Array, RawArray and RawValue is seen by the launcher."""
    total, single = context.Value("i", 0), context.RawValue("d", 0)
    array, raw = context.Array("i", N), context.RawArray("d", N)

    flamespawn.spawn(payloads.fill, (total, array, raw, single), N)

    assert (total.value, single.value) == (6, 4.5)
    assert list(array) == list(raw) == [1, 2, 3]


def test_both_ends_of_a_pipe(context: Any, pipe: tuple[Connection, Connection]) -> None:
    """Two ranks that have one end each of a duplex pipe talk to each other."""
    here, there = pipe
    ends = context.Pipe(duplex=True)

    flamespawn.spawn(payloads.talk, (ends, there), 2)

    assert received(here, 2) == [(0, "from 1"), (1, "from 0")]
    for end in ends:
        end.close()


def test_shared_memory() -> None:
    """SharedMemory and ShareableList are the same memory in all ranks."""
    memory, numbers = SharedMemory(create=True, size=N), ShareableList([0] * N)
    try:
        flamespawn.spawn(payloads.use_memory, (memory, numbers), N)

        assert bytes(memory.buf[:N]) == bytes([1, 2, 3])
        assert list(numbers) == [1, 2, 3]
    finally:
        for one in (memory, numbers.shm):
            one.close()
            one.unlink()


def test_proxies(context: Any) -> None:
    """Proxies of a manager work in ranks."""
    with context.Manager() as manager:
        shared = manager.dict(), manager.list(), manager.Queue(), manager.Lock()
        names = manager.Namespace(total=0)
        ranks = flamespawn.spawn(payloads.use_proxies, (*shared, names), N, join=False)
        with ranks:
            pids = ranks.pids()

        table, numbers, queue, _ = shared
        assert dict(table) == dict(enumerate(pids))
        assert sorted(numbers) == sorted(queue.get() for _ in range(N)) == list(range(N))
        assert names.total == 3


def test_listening_socket() -> None:
    """Ranks accept connections from a socket that the launcher listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ranks = flamespawn.spawn(payloads.accept, (listener,), N, join=False)
        answers = set()
        for _ in range(N):
            with socket.create_connection(listener.getsockname(), payloads.PATIENCE) as client:
                answers.add(client.recv(1))
        with ranks:
            pass

    assert answers == {b"0", b"1", b"2"}


def test_authentication_key() -> None:
    """Ranks have the launcher's key, for connections and as an argument."""
    key = multiprocessing.current_process().authkey
    with Listener(("127.0.0.1", 0), authkey=bytes(key)) as listener:
        ranks = flamespawn.spawn(payloads.authenticate, (listener.address, key), N, join=False)
        answers = set()
        for _ in range(N):
            with listener.accept() as client:
                answers.add(client.recv())
        with ranks:
            pass

    assert answers == {(rank, True, True) for rank in range(N)}


@pytest.mark.parametrize("method", ["spawn", None])
def test_nested(pipe: tuple[Connection, Connection], method: str | None) -> None:
    """A rank hands on to ranks of its own what it was given and what it has made."""
    here, there = pipe

    flamespawn.spawn(payloads.nest, (there, method), 2)

    assert received(here, 6) == [
        *(("inner", outer, [(outer, 0), (outer, 1)]) for outer in range(2)),
        *(("innermost", outer, inner) for outer in range(2) for inner in range(2)),
    ]


# ------------------------------------------------------------------------------------------- values


VALUES = """[
    payloads.Colour.RED, [payloads.Colour.BLUE], payloads.Settings("x"), payloads.Pair(1, [2]),
    payloads.Node, print, len, None, ..., 2**9000, -1.5, 1j, float("inf"), "text \\udc80", b"",
    {"a": {1: (2,)}}, {1, 2}, frozenset({3}), range(5), slice(1, 2), int, list[int],
    bytearray(payloads.pattern(3_000_000)), payloads.pattern(3_000_000, 1), "ü" * 1_000_000,
    __import__("collections").Counter("abca"), __import__("collections").deque([1], 3),
    __import__("array").array("d", range(100_000)), __import__("decimal").Decimal("1.10"),
    __import__("pathlib").PurePosixPath("/a/b"), __import__("re").compile("a+"),
    __import__("datetime").timedelta(3), __import__("fractions").Fraction(1, 3),
]"""


def test_values() -> None:
    """Values of all kinds, large ones too, are equal and of the same type in a rank."""
    values = eval(VALUES)

    flamespawn.spawn(payloads.check_equal, (values, VALUES), 2)


@pytest.mark.parametrize(
    "error", [ValueError("no", 3), ExceptionGroup("no", [ValueError(3)])], ids=repr
)
def test_exceptions(error: Exception) -> None:
    """An exception can be an argument."""
    error.add_note("a note")

    flamespawn.spawn(payloads.check_error, (error, type(error), repr(error.args)), 2)


def test_arguments_that_cannot_be_loaded() -> None:
    """What can be pickled but not unpickled is a failure of the ranks, with its traceback."""
    with pytest.raises(flamespawn.ProcessRaisedException, match="missing 1 required") as caught:
        flamespawn.spawn(jobs.nothing, (jobs.NotUnpicklable(1, 2),), 2)

    assert isinstance(caught.value.__cause__, TypeError)
    assert "before the function was called" in str(caught.value)


def callables(pipe: Connection) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    worker = payloads.Worker(pipe, "worker")
    return {
        "bound method": (worker.work, ("word",)),
        "object": (worker, ("word",)),
        "class method": (payloads.Worker.of_class, ("word", pipe)),
        "partial": (functools.partial(worker.work, word="word"), ()),
        "partial of partial": (functools.partial(functools.partial(worker), word="word"), ()),
    }


@pytest.mark.parametrize("kind", callables(None))  # type: ignore[arg-type]
def test_callables(pipe: tuple[Connection, Connection], kind: str) -> None:
    """What ranks run need not be a function."""
    here, there = pipe
    fn, args = callables(there)[kind]

    flamespawn.spawn(fn, args, 2)

    assert received(here, 2) == [(0, "worker", "word"), (1, "worker", "word")]


def test_shared_references_and_cycles() -> None:
    """What is one object in the launcher is one object in a rank; cycles are cycles."""
    ring: list[Any] = []
    ring.append(ring)
    node = payloads.Node("first")
    node.next = payloads.Node("second")
    node.next.next = node

    flamespawn.spawn(payloads.check_shape, (ring, node, {"ring": ring, "node": node}), 2)


def test_function_and_arguments_share(pipe: tuple[Connection, Connection]) -> None:
    """The owner of the method that ranks run is the same object as the one in the arguments."""
    _, there = pipe
    worker = payloads.Worker(there, "worker")

    flamespawn.spawn(worker.check_owner, (worker, [there, there]), 2)


def test_many_small_objects() -> None:
    """100,000 objects arrive in their order, each as one."""
    flamespawn.spawn(payloads.check_many, ([payloads.Node(n) for n in range(100_000)],), 2)
