"""What becomes of ranks that nobody joins: exit of the launcher, dropped contexts, forks, exec."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import conftest
import flamespawn
import jobs
import probes
from test_launcher import wait_until_asleep

RunLauncher = Callable[..., "subprocess.Popen[str]"]

START_METHODS = ["spawn", "fork", "forkserver"]
MECHANISMS = ["handles", "threads"]

# ------------------------------------------------------------------------- the launcher's exit


# What a launcher does before it exits without having joined its ranks.
NOT_JOINED = """
import multiprocessing, sys
import flamespawn, jobs, probes

if __name__ == "__main__":
    mechanism, start_method, daemon, job, grace = sys.argv[1:]
    if mechanism == "threads":
        probes.without_handles()
    here, there = multiprocessing.Pipe(duplex=False)
    contexts = [
        flamespawn.start_processes(
            getattr(jobs, job), (there,), 2, join=False, daemon=daemon == "daemonic",
            start_method=start_method, grace_period=float(grace),
        )
        for _ in range(2)
    ]
    for _ in range(4):
        here.recv()
    print(*(pid for context in contexts for pid in context.pids()), flush=True)
"""


def pids_of(out: str) -> list[int]:
    return [int(word) for word in out.split()]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid)]


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("daemon", ["daemonic", "not daemonic"])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_launcher_that_exits_without_joining(
    start_method: str, daemon: str, mechanism: str, run_launcher: RunLauncher
) -> None:
    """Its exit stops the ranks that run, daemonic or not, and it says nothing."""
    launcher = run_launcher(NOT_JOINED, mechanism, start_method, daemon, "announce_and_wait", "600")

    out, err = launcher.communicate(timeout=probes.SECONDS)

    assert (launcher.returncode, err) == (0, "")
    assert len(pids_of(out)) == 4
    assert alive(pids_of(out)) == []


@pytest.mark.posix("a SIGTERM that can be caught")
def test_the_grace_period_at_the_exit(run_launcher: RunLauncher) -> None:
    """Ranks that ignore SIGTERM are killed, and contexts do not wait for one another."""
    launcher = run_launcher(NOT_JOINED, "handles", "spawn", "not daemonic", "ignore_sigterm", "3")
    assert launcher.stdout is not None
    pids = pids_of(launcher.stdout.readline())

    began = time.monotonic()
    _, err = launcher.communicate(timeout=probes.SECONDS)

    # With two contexts one after the other it would be six.
    assert 2 < time.monotonic() - began < 6
    assert (launcher.returncode, err) == (0, "")
    assert alive(pids) == []


@pytest.mark.posix("/proc")
def test_an_interrupt_at_the_exit(run_launcher: RunLauncher) -> None:
    """A Ctrl-C while a launcher that exits waits for its ranks kills them at once."""
    launcher = run_launcher(NOT_JOINED, "handles", "fork", "not daemonic", "ignore_sigterm", "600")
    assert launcher.stdout is not None
    pids = pids_of(launcher.stdout.readline())
    wait_until_asleep(launcher.pid)

    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=probes.SECONDS)

    assert err.count("KeyboardInterrupt") == 1
    assert alive(pids) == []


FAILED_BEFORE = """
import flamespawn, jobs

if __name__ == "__main__":
    context = flamespawn.spawn(jobs.call_in, (0, jobs.raise_value_error), 2, join=False)
    context.processes[0].join()
"""


def test_a_failure_that_nobody_joined_is_shown(run_launcher: RunLauncher) -> None:
    """A rank that has failed before the exit is not lost: stderr has what join() had raised."""
    launcher = run_launcher(FAILED_BEFORE)

    _, err = launcher.communicate(timeout=probes.SECONDS)

    assert "-- Process 0 terminated with the following error:" in err
    assert "ValueError: wrong value" in err
    assert launcher.returncode == 0


JOINED_LATE = """
import atexit, sys
import flamespawn, jobs

if __name__ == "__main__":
    context = flamespawn.spawn(jobs.nothing, nprocs=2, join=False)
    atexit.register(lambda: print("true" if context.join() or context.join() else "false"))
"""


def test_an_exit_handler_may_join(run_launcher: RunLauncher) -> None:
    """Ranks run on while the user's own exit handlers run, which may join them."""
    assert probes.printed(run_launcher(JOINED_LATE)) is True


STUCK = """
import multiprocessing, sys
import flamespawn, jobs

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    import seccomp
    here, there = multiprocessing.Pipe(duplex=False)
    context = flamespawn.start_processes(
        jobs.announce_and_wait, (there,), join=False, start_method=jobs.QUICK, grace_period=0.1
    )
    here.recv()
    seccomp.install(["pidfd_send_signal"], 1)
"""


@pytest.mark.posix("seccomp")
def test_a_rank_that_cannot_be_ended_does_not_keep_the_launcher(run_launcher: RunLauncher) -> None:
    """What could not be ended at the exit is abandoned, and not waited for without limit."""
    launcher = run_launcher(STUCK, conftest.HERE)

    assert launcher.wait(timeout=probes.SECONDS) == 0


LATE_CONTEXT = """
import atexit, multiprocessing

def start():
    import flamespawn, jobs
    global context
    here, there = multiprocessing.Pipe(duplex=False)
    context = flamespawn.start_processes(
        jobs.announce_and_wait, (there,), 2, join=False, start_method=jobs.QUICK
    )
    here.recv()
    here.recv()
    print(*context.pids(), flush=True)

# Called after the handler of multiprocessing.
atexit.register(start)
import multiprocessing.util
"""


def test_a_context_of_the_last_moment(run_launcher: RunLauncher) -> None:
    """One that is made after multiprocessing's own exit handler is ended as it is collected."""
    launcher = run_launcher(LATE_CONTEXT)

    out, err = launcher.communicate(timeout=probes.SECONDS)

    assert (launcher.returncode, err) == (0, "")
    assert len(pids_of(out)) == 2
    assert alive(pids_of(out)) == []


# --------------------------------------------------------------------------- dropped contexts


def running_context(
    nprocs: int = 2, start_method: str = jobs.QUICK, job: Any = jobs.announce_and_wait
) -> flamespawn.ProcessContext:
    """Start ranks, and wait until they run."""
    here, there = multiprocessing.Pipe(duplex=False)
    context = flamespawn.start_processes(
        job, (there,), nprocs, join=False, start_method=start_method
    )
    for _ in range(nprocs):
        here.recv()
    here.close()
    there.close()
    assert context is not None
    return context


@contextmanager
def dropped(pids: list[int], number: int = 2) -> Iterator[None]:
    """Expect a warning, and that nothing is left of the ranks."""
    with pytest.warns(ResourceWarning, match=f"{number} ranks were killed because nobody refers"):
        yield
    assert alive(pids) == []


@pytest.mark.usefixtures("mechanism")
@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_dropped_context_ends_its_ranks(start_method: str) -> None:
    """When nobody refers to a context any more, its ranks are gone at once, with a warning."""
    context = running_context(start_method=start_method, job=jobs.ignore_sigterm)
    pids = context.pids()

    with dropped(pids):
        del context


def test_a_context_in_a_cycle() -> None:
    """One that the cyclic garbage collector finds ends its ranks, also in another thread."""
    context: Any = running_context()
    pids = context.pids()
    cycle = [context]
    cycle.append(cycle)
    del context, cycle

    with dropped(pids):
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()


def test_a_context_that_is_over_is_dropped_without_a_word() -> None:
    """Joined, failed and stopped contexts give no warning."""
    joined = flamespawn.start_processes(jobs.nothing, join=False, start_method=jobs.QUICK)
    failed = flamespawn.start_processes(
        jobs.raise_in, (0, ValueError()), join=False, start_method=jobs.QUICK
    )
    stopped = running_context()
    assert joined.join()
    with pytest.raises(flamespawn.ProcessRaisedException):
        failed.join()
    stopped.stop()

    del joined, failed, stopped
    gc.collect()


def test_a_context_that_was_made_by_hand_leaves_processes_to_their_owner() -> None:
    """Dropping it ends nothing: what others have started is theirs."""
    process = multiprocessing.get_context(jobs.QUICK).Process(target=jobs.sleep_forever)
    process.start()
    context = flamespawn.ProcessContext([process], [None])

    with pytest.warns(ResourceWarning, match="unclosed"):
        del context
        gc.collect()

    assert process.is_alive()
    process.kill()
    process.join()


# -------------------------------------------------------------------------------- forked processes


@pytest.mark.posix("fork")
def test_a_forked_process_does_not_touch_the_ranks() -> None:
    """In a plain fork of the launcher, dropping the context and exiting leave the ranks alone."""
    context = running_context()
    pids = context.pids()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            shared = [
                fd for fd in descriptors_of(os.getpid()) if "pidfd" in fd or "eventpoll" in fd
            ]
            found = json.dumps([shared, len(multiprocessing.active_children())])
            os.write(writer, found.encode())
            del context
            gc.collect()
            multiprocessing.util._exit_function()
            code = 0
        finally:
            os._exit(code)

    assert os.waitpid(pid, 0)[1] == 0
    os.close(writer)
    assert json.loads(os.read(reader, 1 << 16)) == [[], 0]
    os.close(reader)
    assert alive(pids) == pids
    assert context.join(0) is False
    context.stop()


def descriptors_of(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def join_until_killed(context: flamespawn.ProcessContext) -> None:
    with pytest.raises(flamespawn.ProcessExitedException):
        context.join()


@pytest.mark.posix("fork")
def test_a_fork_while_another_thread_joins() -> None:
    """A process that is forked in the middle of a join is as well off as any other."""
    context = running_context()
    thread = threading.Thread(target=join_until_killed, args=(context,))
    thread.start()
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            del context
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    context.kill()
    thread.join()


# --------------------------------------------------------------------------------------- exec


EXECV = """
import json, multiprocessing, os, sys
import flamespawn, jobs

SHOW = '''
import json, os, sys
found = {}
for name in os.listdir("/proc/self/fd"):
    try:
        found[name] = os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        pass
print(json.dumps([found, sys.argv[1:]]), flush=True)
'''

if __name__ == "__main__":
    here, there = multiprocessing.Pipe(duplex=False)
    context = flamespawn.start_processes(
        jobs.announce_and_wait, (there,), 2, join=False, start_method=sys.argv[1]
    )
    here.recv()
    here.recv()
    os.execv(sys.executable, [sys.executable, "-c", SHOW, *map(str, context.pids())])
"""


@pytest.mark.posix("exec")
@pytest.mark.parametrize("start_method", START_METHODS)
def test_exec_of_the_launcher(start_method: str, run_launcher: RunLauncher, tmp_path: Path) -> None:
    """What replaces a launcher inherits the standard descriptors only, and its ranks end."""
    # The folder of a fork server is removed by an exit that never comes.
    launcher = run_launcher(EXECV, start_method, prefix=("env", f"TMPDIR={tmp_path}"))

    assert launcher.stdout is not None
    found, words = json.loads(launcher.stdout.readline())
    pids = [int(word) for word in words]

    assert set(found) == {"0", "1", "2"}
    # Their guards end them, of which nobody tells whom they do not belong to.
    deadline = time.monotonic() + probes.SECONDS
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive(pids) == []
