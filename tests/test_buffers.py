"""Large buffers of arguments: mapped by each rank for itself, and shared until one writes."""

from __future__ import annotations

import mmap
import multiprocessing
import sys
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest

import conftest
import flamespawn
import payloads
from flamespawn import _payload

THRESHOLD = _payload._OUT_OF_BAND_FROM
N = 3


@pytest.fixture(params=["memfd", "shared memory", "temporary folder"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with each kind of file that a payload can be in."""
    if conftest.ON_WINDOWS:
        if request.param != "temporary folder":
            pytest.skip("POSIX only: files in memory")
        return str(request.param)
    from flamespawn import _system_posix

    if request.param != "memfd":
        monkeypatch.setattr(_system_posix, "has_memfd", lambda: False)
    elif not _system_posix.has_memfd():
        pytest.skip("this system offers no memfd_create")
    if request.param == "temporary folder":
        monkeypatch.setattr(_system_posix, "_SHARED_MEMORY", "/nonexistent")
    return str(request.param)


def handed(size: int, seed: int = 0) -> payloads.Handed:
    return payloads.Handed(bytearray(payloads.pattern(size, seed)))


# ---------------------------------------------------------------------------------------- buffers


def test_sizes_around_the_threshold(store: str) -> None:
    """Buffers of all sizes arrive; those from the threshold on are writable and begin a page."""
    sizes = [0, 1, mmap.PAGESIZE, *range(THRESHOLD - 3, THRESHOLD + 4), 3 * THRESHOLD + 1] * 8
    values = [handed(size, seed) for seed, size in enumerate(sizes)]

    flamespawn.spawn(payloads.check_buffers, (values, sizes, THRESHOLD), 2)


def test_a_thousand_buffers(store: str) -> None:
    """A thousand large buffers arrive, each with its content."""
    sizes = [THRESHOLD + seed for seed in range(1000)]
    values = [handed(size, seed) for seed, size in enumerate(sizes)]

    flamespawn.spawn(payloads.check_buffers, (values, sizes, THRESHOLD), 2)


def test_read_only_buffers(store: str) -> None:
    """What is read-only in the launcher is so in a rank, whether it is large or small."""
    small, large = (payloads.Handed(bytes(size)) for size in (10, THRESHOLD))

    flamespawn.spawn(payloads.check_read_only, (small, large), 2)


def test_writing_is_private(store: str) -> None:
    """What a rank writes into a buffer is seen by no other rank and not by the launcher."""
    barrier = multiprocessing.get_context("spawn").Barrier(N)
    value = handed(1 << 22)

    flamespawn.spawn(payloads.write_own, (value, [value], barrier), N)

    assert value.memory == payloads.pattern(1 << 22)


def test_changes_of_the_launcher_come_too_late(store: str) -> None:
    """What the launcher writes after the start is not seen by ranks."""
    gate, key = multiprocessing.Pipe(duplex=False)
    value = handed(1 << 20)
    checksum = zlib.crc32(value.memory)

    ranks = flamespawn.spawn(payloads.wait_and_read, (value, checksum, gate), 2, join=False)
    value.memory[:] = bytes(len(value.memory))
    key.close()

    with ranks, gate:
        pass


def test_a_process_object_maps_its_arguments_too(store: str) -> None:
    """A process of `get_context` gets large buffers in the same way."""
    sizes = [100, THRESHOLD, 1 << 20]
    values = [handed(size, seed) for seed, size in enumerate(sizes)]
    context = flamespawn.get_context()

    process = context.Process(target=payloads.check_buffers, args=(0, values, sizes, THRESHOLD))
    process.start()
    process.join()

    assert process.exitcode == 0


@pytest.mark.posix("files without names")
def test_no_name_in_any_folder(store: str) -> None:
    """The file that ranks use is in memory where that is possible, and has no name anywhere."""
    folders = {"memfd": "/memfd:flamespawn", "shared memory": "/dev/shm/"}
    folder = folders.get(store, tempfile.gettempdir())

    flamespawn.spawn(payloads.check_file, (handed(1 << 20), folder), 2)


# ------------------------------------------------------------------------------------------- numpy


@pytest.fixture
def numpy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import numpy, here and in ranks, without the threads that it would start."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    return pytest.importorskip("numpy")


@pytest.mark.wine("crealf(), without which numpy cannot be loaded")
def test_arrays(store: str, numpy: Any) -> None:
    """Arrays of numpy arrive as they are: order, type, flags; two arguments can be one array."""
    arrays = payloads.make_arrays()

    flamespawn.spawn(payloads.check_arrays, (arrays, arrays["large"]), 2)

    assert numpy.array_equal(arrays["large"], payloads.make_arrays()["large"])


@pytest.mark.wine("crealf(), without which numpy cannot be loaded")
def test_writing_to_arrays_is_private(store: str, numpy: Any) -> None:
    """A rank that writes all over an array changes nobody else's."""
    barrier = multiprocessing.get_context("spawn").Barrier(N)
    array = numpy.full(1 << 19, -1.0)

    flamespawn.spawn(payloads.write_own_array, (array, barrier), N)

    assert (array == -1).all()


# ------------------------------------------------------------------------------------------ memory


def pss(pid: int) -> int:
    """Return the memory of a process, in bytes; what several share counts in parts."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


@pytest.mark.slow
@pytest.mark.posix("proportional set sizes")
def test_ranks_share_what_they_only_read() -> None:
    """Four ranks that have read 300 MB together take little more than that."""
    size = 300 << 20
    value = handed(size)
    checksum = zlib.crc32(value.memory)
    here, there = multiprocessing.Pipe(duplex=False)
    gate, key = multiprocessing.Pipe(duplex=False)

    ranks = flamespawn.spawn(payloads.read_and_hold, (value, checksum, there, gate), 4, join=False)
    pids = [here.recv() for _ in range(4)]
    taken = sum(map(pss, pids))
    key.close()
    with ranks, here, there, gate:
        pass

    assert size < taken < 1.5 * size


# ------------------------------------------------------------------------ where calls are refused


CALLS = ["memfd_create", "clone3", "close_range", "pidfd_open", "epoll_pwait2"]

LARGE_ARGUMENT = """
import multiprocessing
import flamespawn, payloads

if __name__ == "__main__":
    barrier = multiprocessing.get_context("spawn").Barrier(3)
    value = payloads.Handed(bytearray(payloads.pattern(1 << 22)))
    flamespawn.spawn(payloads.write_own, (value, [value], barrier), 3)
    assert value.memory == payloads.pattern(1 << 22)
    assert not multiprocessing.active_children()
    print("done")
"""


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        ("ENOSYS", ",".join(CALLS)),
        # Not all: the C library makes no threads where clone3 gives EPERM.
        *((error, call) for error in ("ENOSYS", "EPERM") for call in CALLS),
    ],
)
@pytest.mark.posix("seccomp")
def test_where_the_kernel_refuses(calls: str, error: str, run_launcher: Callable[..., Any]) -> None:
    """Where a call is refused by a real filter, a large argument arrives all the same."""
    prefix = (sys.executable, conftest.HERE / "seccomp.py", error, calls)

    launcher = run_launcher(LARGE_ARGUMENT, prefix=prefix)

    assert launcher.communicate(timeout=conftest.WATCHDOG_SECONDS) == ("done\n", "")
    assert launcher.returncode == 0
