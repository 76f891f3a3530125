"""What only Windows has: jobs, exit codes of 32 bits, handles, virtual environments."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

import conftest
import flamespawn
import jobs
from flamespawn import _native
from probes import SECONDS

if not conftest.ON_WINDOWS:
    pytest.skip("Windows only", allow_module_level=True)

import msvcrt

RunLauncher = Callable[..., "subprocess.Popen[str]"]


def wait_until_gone(pids: list[int]) -> None:
    """Wait for the end of processes that are not ours."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(SECONDS)


# --------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize("code", [1, 255, 256, 259, 0x8000_0000, 0xC000_0005, 0xFFFF_FFFF])
def test_exit_codes_have_32_bits(code: int) -> None:
    """The exit code of a rank is what it gave to the system, also where it looks like a status."""
    number = code - (1 << 32) if code >= 1 << 31 else code

    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        flamespawn.spawn(jobs.call_in, (0, os._exit, number))

    assert caught.value.exit_code == code
    assert caught.value.signal_name is None
    assert f"process 0 terminated with exit code {code}" in str(caught.value)


@pytest.mark.parametrize("code", [-1, 256, (1 << 40) + 7])
def test_sys_exit(code: int) -> None:
    """sys.exit in a rank gives the exit code that the interpreter would give."""
    alone = subprocess.run([sys.executable, "-c", f"import sys; sys.exit({code})"], check=False)

    context = flamespawn.spawn(jobs.call_in, (0, sys.exit, code), join=False)
    assert context is not None
    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        context.join()

    assert caught.value.exit_code == alone.returncode
    assert context.processes[0].exitcode == alone.returncode


def test_a_terminated_rank_was_ended_by_a_signal() -> None:
    """What `Process.terminate` does is told apart from an exit, as in multiprocessing."""
    context = flamespawn.spawn(jobs.wait_forever, nprocs=2, join=False)
    assert context is not None
    context.processes[1].terminate()

    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        context.join()

    assert (caught.value.error_index, caught.value.signal_name) == (1, "SIGTERM")
    assert caught.value.exit_code == -signal.SIGTERM
    assert context.processes[1].exitcode == -signal.SIGTERM


# --------------------------------------------------------------------------------------- exceptions


def handle_an_access_violation(rank: int) -> None:
    with pytest.raises(OSError, match="access violation"):
        ctypes.string_at(0)


def test_an_exception_of_the_system_that_is_handled() -> None:
    """What faulthandler writes about it makes no failure of the rank."""
    flamespawn.spawn(handle_an_access_violation)


# --------------------------------------------------------------------------------------------- jobs


def start_other_and_wait(rank: int, pipe: Connection) -> None:
    command = [sys.executable, "-c", f"import time; time.sleep({jobs.FOREVER})"]
    other = subprocess.Popen(command, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
    pipe.send([os.getpid(), other.pid])
    time.sleep(jobs.FOREVER)


def test_what_a_rank_has_started_ends_with_it() -> None:
    """Ranks that are stopped take along what they have started."""
    here, there = multiprocessing.Pipe(duplex=False)
    context = flamespawn.spawn(start_other_and_wait, (there,), 2, join=False)
    assert context is not None
    pids = here.recv() + here.recv()

    context.stop()

    wait_until_gone(pids)
    here.close()
    there.close()


LAUNCHER = """
import multiprocessing, sys
import flamespawn, test_windows

if __name__ == "__main__":
    here, there = multiprocessing.Pipe(duplex=False)
    context = flamespawn.spawn(test_windows.start_other_and_wait, (there,), 2, join=False)
    print(here.recv() + here.recv(), flush=True)
    if sys.argv[1] == "exit":
        import os
        os._exit(3)
    context.join()
"""


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_ranks_end_with_their_launcher(how: str, run_launcher: RunLauncher) -> None:
    """However a launcher ends, nothing of what it and its ranks have started is left."""
    launcher = run_launcher(LAUNCHER, how)
    assert launcher.stdout is not None
    pids = json.loads(launcher.stdout.readline())
    assert len(pids) == 4
    if how == "kill":
        launcher.kill()

    wait_until_gone([launcher.pid, *pids])


# ------------------------------------------------------------------------------------------ handles


def send_number_of_handles(rank: int, pipe: Connection) -> None:
    pipe.send(sum(conftest.descriptors().values()))


def test_ranks_inherit_what_they_are_given_and_nothing_else() -> None:
    """A handle that the launcher lets its children inherit does not get into a rank."""
    here, there = multiprocessing.Pipe(duplex=False)
    flamespawn.spawn(send_number_of_handles, (there,))
    before = here.recv()
    with open(__file__) as file:
        os.set_inheritable(file.fileno(), True)

        flamespawn.spawn(send_number_of_handles, (there,))

    assert here.recv() == before
    here.close()
    there.close()


# Ranks of pytest would import it.
COUNTING = """
import multiprocessing
import flamespawn

def count(rank, number):
    with number:
        number.value += 1

if __name__ == "__main__":
    number = multiprocessing.Value("i", 0)
    flamespawn.spawn(count, (number,), 200)
    print(number.value)
"""


@pytest.mark.slow
def test_two_hundred_ranks(run_launcher: RunLauncher) -> None:
    """One wait takes more ranks than WaitForMultipleObjects does."""
    # Wine starts seven in a second, and fewer when it has something else to do.
    faulthandler.dump_traceback_later(5 * SECONDS, exit=True)

    launcher = run_launcher(COUNTING)

    assert launcher.communicate() == ("200\n", "")


# ------------------------------------------------------------------------------------------ signals


def test_an_interrupt_ends_a_wait() -> None:
    """A Ctrl-C, of which the interpreter is told by another thread, wakes the wait at once."""
    context = flamespawn.spawn(jobs.wait_forever, join=False)
    assert context is not None
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()

    with pytest.raises(KeyboardInterrupt):
        context.join()

    timer.join()
    context.stop()


# ------------------------------------------------------------------------------------- environments


@pytest.fixture
def venv_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program of a virtual environment, which starts the real interpreter as a child."""
    if conftest.is_wine():
        # Wine 8 lacks it, and `shutil` does without.
        monkeypatch.delattr("_winapi.CopyFile2", raising=False)
    home = tmp_path / "venv"
    venv.create(home)
    return home / "Scripts" / "python.exe"


PRINT_ENVIRONMENT = """
import json, os, sys
import flamespawn

def show(rank):
    is_child = os.getppid() == int(os.environ["LAUNCHER"])
    print(json.dumps([sys.executable, sys.prefix, is_child]))

if __name__ == "__main__":
    os.environ["LAUNCHER"] = str(os.getpid())
    print(json.dumps([sys.executable, sys.prefix, True]), flush=True)
    flamespawn.spawn(show)
"""


def test_a_virtual_environment(venv_python: Path, tmp_path: Path, run_command: RunLauncher) -> None:
    """A rank is in its launcher's environment, and is started without its launching program."""
    script = tmp_path / "script.py"
    script.write_text(PRINT_ENVIRONMENT)

    program = run_command(venv_python, script)
    output, errors = program.communicate(timeout=SECONDS)

    assert errors == ""
    first, second = map(json.loads, output.splitlines())
    assert first == second == [str(venv_python), str(venv_python.parent.parent), True]


def test_a_virtual_environment_is_killed(
    venv_python: Path, tmp_path: Path, run_command: RunLauncher
) -> None:
    """Who has started a launcher knows the launching program only; with it all are gone."""
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHER)
    program = run_command(venv_python, script, "kill")
    assert program.stdout is not None
    pids = json.loads(program.stdout.readline())
    (launcher,) = psutil.Process(program.pid).children()

    program.kill()

    wait_until_gone([launcher.pid, *pids])


# ------------------------------------------------------------------------------- the native module


@pytest.fixture
def process_set() -> Iterator[_native.ProcSet]:
    opened = _native.ProcSet(_native.probe())
    yield opened
    opened.close()


def test_errors_name_the_failed_call(process_set: _native.ProcSet) -> None:
    """An OSError carries the system's code and the name of the call."""
    with pytest.raises(OSError, match="DuplicateHandle: ") as caught:
        process_set.add(os.getpid(), sentinel=987654)

    assert caught.value.winerror == 6


def test_members_that_do_not_exist(process_set: _native.ProcSet) -> None:
    """An index without a member is an error of every call."""
    for call in (
        lambda: process_set.usage(0),
        lambda: process_set.signal(0, 0),
        lambda: process_set.read(0, bytearray(), 10),
        lambda: process_set.forget_report(0),
    ):
        with pytest.raises(OSError, match="index: "):
            call()


def test_reading_appends(process_set: _native.ProcSet) -> None:
    """read() appends to the buffer: bytes, zero at the end, None when there is nothing yet."""
    read_end, write_end = _native.open_pipe()
    other = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({jobs.FOREVER})"])
    index = process_set.add(other.pid, sentinel=int(other._handle), report=read_end.fileno())
    buffer = bytearray(b"before")
    fd = msvcrt.open_osfhandle(write_end.detach(), os.O_WRONLY)

    assert process_set.read(index, buffer, 100) is None
    assert buffer == b"before"
    os.write(fd, b"more")
    assert process_set.wait() == [(_native.READABLE, index, None)]
    assert process_set.read(index, buffer, 3) == 3
    assert process_set.read(index, buffer, 3) == 1
    assert buffer == b"beforemore"
    os.close(fd)
    assert process_set.wait() == [(_native.READABLE, index, None)]
    assert process_set.read(index, buffer, 3) == 0
    process_set.forget_report(index)
    read_end.close()
    other.kill()
    assert process_set.wait() == [(_native.ENDED, index, 1)]
    assert other.wait() == 1
