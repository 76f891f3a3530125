"""What the tests of the payload send to ranks, and what ranks do with it; imports little."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import enum
import mmap
import multiprocessing
import os
import pickle
import socket
import sys
import tempfile
import time
import zlib
from multiprocessing.connection import Client, Connection
from multiprocessing.shared_memory import ShareableList, SharedMemory
from typing import Any, NamedTuple, NoReturn

import flamespawn

PATIENCE = 60

# --------------------------------------------------------------------- values that are sent around


class Colour(enum.Enum):
    RED = 1
    BLUE = (2, 3)


class Pair(NamedTuple):
    left: object
    right: object


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    colours: tuple[Colour, ...] = (Colour.RED,)


class Node:
    def __init__(self, name: object) -> None:
        self.name = name
        self.next: Node | None = None


class Worker:
    """Something whose methods, and which itself, can be what ranks run."""

    def __init__(self, pipe: Connection, name: str) -> None:
        self.pipe = pipe
        self.name = name

    def __call__(self, rank: int, word: str) -> None:
        self.pipe.send((rank, self.name, word))

    def work(self, rank: int, word: str) -> None:
        self(rank, word)

    @classmethod
    def of_class(cls, rank: int, word: str, pipe: Connection) -> None:
        cls(pipe, "worker")(rank, word)

    def check_owner(self, rank: int, owner: object, parts: list[object]) -> None:
        assert owner is self
        assert parts == [self.pipe, self.pipe]
        assert parts[0] is parts[1] is self.pipe


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Counted:
    """Counts how often it is pickled, and carries the count."""

    count = 0

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        Counted.count += 1
        return Counted, (Counted.count,)


class RaisesWhenPickled:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> NoReturn:
        raise self.error


class Handed:
    """Memory that pickle may leave out of its stream, as arrays of other libraries do."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __reduce_ex__(self, protocol: Any) -> Any:
        assert protocol == 5
        return Handed, (pickle.PickleBuffer(self.memory),)


def rebuild_cuda_tensor(number: int) -> int:
    """Stand in for torch's function of this name, whose pickle can be loaded once."""
    return number


class Consumed:
    pickled = 0

    def __reduce__(self) -> Any:
        Consumed.pickled += 1
        return rebuild_cuda_tensor, (Consumed.pickled,)


def pattern(size: int, seed: int = 0) -> bytes:
    """Return bytes that differ from place to place."""
    unit = bytes((seed + place * 7) % 251 for place in range(251))
    return (unit * (size // 251 + 1))[:size]


# ------------------------------------------------------------------- what ranks do with all of it


def check_equal(rank: int, values: list[Any], expected: str) -> None:
    """Compare with what an expression makes in the rank."""
    own = eval(expected, {"payloads": __import__("payloads")})
    assert [type(value) for value in values] == [type(value) for value in own]
    assert values == own


def check_error(rank: int, error: BaseException, kind: type, args: str) -> None:
    assert type(error) is kind
    assert repr(error.args) == args
    assert error.__notes__ == ["a note"]


def check_shape(rank: int, ring: list[Any], node: Node, parts: dict[str, Any]) -> None:
    assert ring[0] is ring
    assert node.next is not None
    assert node.next.next is node
    assert parts == {"ring": ring, "node": node}
    assert parts["ring"] is ring
    assert parts["node"] is node


def check_many(rank: int, nodes: list[Node]) -> None:
    assert [node.name for node in nodes] == list(range(len(nodes)))
    assert len({id(node) for node in nodes}) == len(nodes)


def check_number(rank: int, counted: Counted, number: int) -> None:
    assert (counted.number, Counted.count) == (number, 0)


def check_own_load(rank: int, number: int, numbers: list[int]) -> None:
    assert number == numbers[rank]


def check_sys(rank: int, name: str, expected: list[object]) -> None:
    assert getattr(sys, name) == expected
    assert list(map(type, getattr(sys, name))) == list(map(type, expected))


def take_and_answer(rank: int, tasks: Any, results: Any) -> None:
    task = tasks.get()
    results.put((task, os.getpid()))
    if hasattr(tasks, "task_done"):
        tasks.task_done()


def count_under(rank: int, lock: Any, number: Any, depth: int, times: int) -> None:
    """Add 1 in a way that goes wrong where the lock does not lock."""
    for _ in range(times):
        for _ in range(depth):
            assert lock.acquire(timeout=PATIENCE)
        value = number.value
        time.sleep(0)
        number.value = value + 1
        for _ in range(depth):
            lock.release()


def check_bound(rank: int, semaphore: Any, inside: Any, most: Any) -> None:
    for _ in range(50):
        with semaphore:
            with inside.get_lock():
                inside.value += 1
                most.value = max(most.value, inside.value)
            time.sleep(0)
            with inside.get_lock():
                inside.value -= 1


def wait_for_turn(rank: int, condition: Any, turn: Any) -> None:
    """Go in the order opposite to that of the start."""
    with condition:
        assert condition.wait_for(lambda: turn.value == rank, PATIENCE)
        turn.value -= 1
        condition.notify_all()


def set_or_wait(rank: int, asked: Any, answered: Any) -> None:
    if rank == 0:
        assert asked.wait(PATIENCE)
        answered.set()
    assert answered.wait(PATIENCE)


def meet(rank: int, barrier: Any, arrived: Any, places: Any) -> None:
    with arrived.get_lock():
        arrived.value += 1
    places[rank] = barrier.wait(PATIENCE)
    assert arrived.value == barrier.parties
    barrier.wait(PATIENCE)


def fill(rank: int, total: Any, array: Any, raw: Any, single: Any) -> None:
    with total.get_lock():
        total.value += rank + 1
    array[rank] = rank + 1
    raw[rank] = rank + 1
    if rank == 0:
        single.value = 4.5


def talk(rank: int, ends: tuple[Connection, Connection], answers: Connection) -> None:
    """Each of two ranks has one end of a pipe, and uses it in both directions."""
    ends[rank].send(f"from {rank}")
    answers.send((rank, ends[rank].recv()))


def use_memory(rank: int, memory: SharedMemory, numbers: ShareableList) -> None:
    memory.buf[rank] = rank + 1
    numbers[rank] = rank + 1
    memory.close()
    numbers.shm.close()


def use_proxies(rank: int, table: Any, numbers: Any, queue: Any, lock: Any, names: Any) -> None:
    table[rank] = os.getpid()
    with lock:
        numbers.append(rank)
        names.total += rank
    queue.put(rank)


def accept(rank: int, listener: socket.socket) -> None:
    listener.settimeout(PATIENCE)
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"%d" % rank)


def authenticate(rank: int, address: Any, key: bytes) -> None:
    own = multiprocessing.current_process().authkey
    with Client(address, authkey=own) as connection:
        connection.send((rank, type(key) is type(own), key == own))


def nest(rank: int, pipe: Connection, method: str | None) -> None:
    """Start ranks of one's own, with a queue of one's own and with what one was given."""
    context = multiprocessing.get_context(method) if method else flamespawn.get_context()
    queue = context.SimpleQueue()
    flamespawn.spawn(put_and_send, (queue, pipe, rank), nprocs=2)
    pipe.send(("inner", rank, sorted(queue.get() for _ in range(2))))


def put_and_send(rank: int, queue: Any, pipe: Connection, outer: int) -> None:
    queue.put((outer, rank))
    pipe.send(("innermost", outer, rank))


# ----------------------------------------------------------------------- large buffers in the rank


def address(memory: Any) -> int:
    """Return where some writable memory is."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def is_payload(name: str) -> bool:
    """Return whether a file, as /proc names it, is a payload made with memfd_create."""
    return "/memfd:flamespawn" in name


def payload_fds() -> list[Any]:
    """
    Return the open descriptors of this process that are payloads.

    On Windows the names of payloads instead: the last one who has one open deletes it by closing.
    """
    if os.name == "nt":
        folder = tempfile.gettempdir()
        return [name for name in os.listdir(folder) if name.startswith("flamespawn-")]
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            if is_payload(os.readlink(f"/proc/self/fd/{name}")):
                found.append(int(name))
    return found


def inheritable_fds() -> list[int]:
    """Return the descriptors that programs started by this process would get."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # as above
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def payload_maps() -> list[str]:
    """Return the names in /proc/self/map_files of payloads in the memory of this process."""
    if os.name == "nt":
        return []
    with open("/proc/self/maps") as file:
        ranges = [line.split()[0] for line in file if is_payload(line)]
    # Without the zeros in front that one of the two has.
    return ["-".join(f"{int(end, 16):x}" for end in found.split("-")) for found in ranges]


def check_traces(rank: int, mapped: bool, *args: object) -> None:
    """Look for what loading the payload has left."""
    assert bool(payload_maps()) == mapped
    # Until 3.13 a memory map keeps a descriptor of its file.
    assert len(payload_fds()) == (mapped and sys.version_info < (3, 13))
    assert set(inheritable_fds()) <= {0, 1, 2}


def check_buffers(rank: int, handed: list[Handed], sizes: list[int], threshold: int) -> None:
    """Compare with what was sent, and see that large memory is mapped and small memory is not."""
    for seed, (one, size) in enumerate(zip(handed, sizes)):
        assert one.memory == pattern(size, seed)
        assert type(one.memory) is (memoryview if size >= threshold else bytearray)
        if size >= threshold:
            assert not one.memory.readonly
            assert address(one.memory) % mmap.PAGESIZE == 0
            one.memory[0] = one.memory[-1] = 255


def check_read_only(rank: int, small: Handed, large: Handed) -> None:
    assert type(small.memory) is bytes
    assert large.memory.readonly
    try:
        large.memory[0] = 1
    except TypeError:
        return
    raise AssertionError


def write_own(rank: int, handed: Handed, again: list[Handed], barrier: Any) -> None:
    """Write to some places, and see neither what others write there nor any other change."""
    memory = handed.memory
    before = bytes(memory)
    places = [0, len(memory) // 2, len(memory) - 1]
    for place in places:
        memory[place] = 251 + rank
    barrier.wait(PATIENCE)
    assert [memory[place] for place in places] == [251 + rank] * 3
    assert again[0] is handed
    for place in places:
        memory[place] = before[place]
    assert memory == before
    barrier.wait(PATIENCE)


def attack(rank: int, handed: Handed, files: int) -> None:
    """Try all ways to change the file that the others map as well."""
    before = bytes(handed.memory)
    names = [f"/proc/self/fd/{fd}" for fd in payload_fds()]
    if os.geteuid() == 0:
        names += [f"/proc/self/map_files/{name}" for name in payload_maps()]
    opened = 0
    for name in names:
        try:
            fd = os.open(name, os.O_RDWR)
        except PermissionError:  # a container need not let its root do this
            continue
        opened += 1
        size = os.fstat(fd).st_size
        for attempt in (
            lambda fd=fd: os.pwrite(fd, b"x" * 64, 0),
            lambda fd=fd, size=size: os.pwrite(fd, b"x", size),
            lambda fd=fd: os.truncate(fd, 0),
            lambda fd=fd, size=size: os.truncate(fd, size + 1),
            lambda fd=fd, size=size: mmap.mmap(fd, size, mmap.MAP_SHARED),
        ):
            try:
                attempt()
            except PermissionError:
                continue
            raise AssertionError(name)
        os.close(fd)
    assert opened >= files
    assert handed.memory == before


def check_file(rank: int, handed: Handed, folder: str) -> None:
    """Look for the file that the memory is from."""
    place = address(handed.memory)
    with open("/proc/self/maps") as file:
        for line in file:
            first, end = (int(number, 16) for number in line.split()[0].split("-"))
            if first <= place < end:
                name = line.split(maxsplit=5)[5]
                assert name.startswith(folder)
                assert name.endswith(" (deleted)\n")
                return
    raise AssertionError


def wait_and_read(rank: int, handed: Handed, checksum: int, gate: Connection) -> None:
    with contextlib.suppress(BrokenPipeError):  # what Windows says at the end
        assert gate.poll(PATIENCE)
    assert zlib.crc32(handed.memory) == checksum


def read_and_hold(
    rank: int, handed: Handed, checksum: int, pipe: Connection, gate: Connection
) -> None:
    """Read all, say so, and keep it until the gate is closed."""
    assert zlib.crc32(handed.memory) == checksum
    pipe.send(os.getpid())
    assert gate.poll(PATIENCE)


# ------------------------------------------------------------------------------------------- numpy


def make_arrays() -> dict[str, Any]:
    """Return arrays of all kinds, large ones and small ones."""
    import numpy as np

    large = np.arange(60_000, dtype=np.float64).reshape(200, 300)
    read_only = large + 1
    read_only.flags.writeable = False
    return {
        "large": large,
        "small": np.arange(5),
        "empty": np.empty((0, 3), np.int16),
        "scalar": np.array(2.5),
        "fortran": np.asfortranarray(large),
        "transposed": large.T,
        "strided": large[::2, ::3],
        "backwards": large[::-1],
        "broadcast": np.broadcast_to(np.arange(300), (200, 300)),
        "read only": read_only,
        "bytes": np.frombuffer(pattern(100_000), np.uint8),
        "boolean": large > 7,
        "complex": large * 1j,
        "big endian": large.astype(">f8"),
        "dates": np.arange(60_000).astype("datetime64[s]"),
        "objects": np.array([{"a": 1}, None, "text"] * 9_000, dtype=object),
        "records": np.zeros(20_000, dtype=[("x", "i4"), ("name", "U5")]),
        "text": np.array(["some", "words"] * 10_000),
    }


def check_arrays(rank: int, arrays: dict[str, Any], again: Any) -> None:
    import numpy as np

    assert again is arrays["large"]
    for name, expected in make_arrays().items():
        array = arrays[name]
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape), name
        assert np.array_equal(array, expected), name
    for name in ("large", "fortran", "transposed", "boolean", "complex", "big endian"):
        array = arrays[name]
        assert array.flags.writeable, name
        assert array.ctypes.data % mmap.PAGESIZE == 0, name
    for name in ("small", "empty", "scalar", "strided", "objects"):
        assert arrays[name].flags.writeable, name
    for name in ("read only", "bytes"):
        assert not arrays[name].flags.writeable, name
    assert arrays["fortran"].flags.f_contiguous
    arrays["large"] += rank
    assert np.array_equal(again, make_arrays()["large"] + rank)


def write_own_array(rank: int, array: Any, barrier: Any) -> None:
    array[:] = rank
    barrier.wait(PATIENCE)
    assert (array == rank).all()
    barrier.wait(PATIENCE)
