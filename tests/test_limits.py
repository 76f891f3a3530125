"""Starts that meet a limit of the system: nothing is left, and the error says which one it was."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import conftest
import flamespawn
import probes

if conftest.ON_WINDOWS:
    pytest.skip("POSIX only: limits of processes, descriptors and files", allow_module_level=True)

import interrupted

RunCommand = Callable[..., "subprocess.Popen[str]"]

START_METHODS = ["spawn", "fork", "forkserver"]
MECHANISMS = ["handles", "threads"]

NOBODY = 65534

# Starts ranks under a limit that the first command sets, and prints the error; then again without.
LAUNCHER = """
import gc, json, multiprocessing, os, resource, subprocess, sys, time
from multiprocessing import forkserver, resource_tracker
import flamespawn, jobs, probes

def left():
    # Only the helpers of multiprocessing.
    helpers = {resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid}
    mine = {int(pid) for pid in open(f"/proc/self/task/{os.getpid()}/children").read().split()}
    return sorted(mine - helpers)

def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd")) - 1

if __name__ == "__main__":
    start_method, mechanism, limit, *rest = sys.argv[1:]
    if mechanism == "threads":
        probes.without_handles()
    multiprocessing.set_forkserver_preload([])
    flamespawn.start_processes(jobs.nothing, start_method=start_method)
    before = descriptors()
    undo = getattr(probes, limit)(*rest)
    try:
        context = flamespawn.start_processes(
            jobs.wait_forever, nprocs=8, join=False, start_method=start_method
        )
    except OSError as error:
        found = [error.errno, str(error), getattr(error, "__notes__", [])]
    else:
        found = None
        context.kill()
    undo()
    children = left()
    flamespawn.start_processes(jobs.nothing, nprocs=2, start_method=start_method)
    print(json.dumps([found, children, descriptors() - before]))
"""


@pytest.fixture
def fail(tmp_path: Path, run_command: RunCommand) -> Callable[..., tuple[int, str, str]]:
    """Start ranks under a limit; return the error's number, text and notes."""
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHER)
    tmp_path.chmod(0o755)

    def run(*rest: object, prefix: Any = (), **options: Any) -> tuple[int, str, str]:
        words = [sys.executable, script, *rest]
        launcher = run_command(*prefix, *words, **options)
        out, err = launcher.communicate(timeout=probes.SECONDS)
        assert launcher.returncode == 0, err
        # Ranks of a fork server that is gone would be nobody's children.
        deadline = time.monotonic() + probes.SECONDS
        while interrupted.members_of(launcher.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert interrupted.members_of(launcher.pid) == set()
        found, children, descriptors = json.loads(out)
        assert found is not None, "it did not fail"
        assert children == []
        assert descriptors <= 0
        number, text, notes = found
        return number, text, "\n".join(notes)

    return run


def as_nobody() -> list[str]:
    """Return the command that runs another as a user for whom limits hold, but who may read all."""
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [*user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("start_method", START_METHODS)
def test_the_limit_on_processes_of_a_user(start_method: str, mechanism: str, fail: Any) -> None:
    """RLIMIT_NPROC is named with its value, and the ranks that were started are gone."""
    number, _, notes = fail(
        start_method,
        mechanism,
        "limit_processes",
        prefix=as_nobody(),
        env={"TMPDIR": "/tmp"},
    )

    assert number == errno.EAGAIN
    assert "RLIMIT_NPROC, the limit on processes and threads of this user (ulimit -u), is " in notes
    assert "pids.max" not in notes


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A real control group that limits processes."""
    for base in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        group = base / f"flamespawn-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / "pids.max").exists():
            break
        group.rmdir()
    else:
        pytest.skip("no control group for processes can be made here")
    yield group
    # A process that was killed is in it until it is reaped, of which nobody tells us.
    deadline = time.monotonic() + probes.SECONDS
    while (members := (group / "cgroup.procs").read_text().split()) and time.monotonic() < deadline:
        for pid in members:
            os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)
    group.rmdir()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("start_method", START_METHODS)
def test_the_limit_of_a_control_group(
    start_method: str, mechanism: str, fail: Any, control_group: Path
) -> None:
    """pids.max is named with its value and its place."""
    enter = ("sh", "-c", f'echo $$ >{control_group}/cgroup.procs && exec "$@"', "-")

    number, _, notes = fail(
        start_method, mechanism, "limit_control_group", control_group, prefix=enter
    )

    assert number == errno.EAGAIN
    assert f"pids.max of the control group {control_group} is " in notes
    assert "RLIMIT_NPROC" not in notes


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("start_method", START_METHODS)
def test_the_limit_on_descriptors(start_method: str, mechanism: str, fail: Any) -> None:
    """RLIMIT_NOFILE is named with its value."""
    number, text, notes = fail(start_method, mechanism, "limit_descriptors")

    assert number == errno.EMFILE
    assert "Too many open files" in text
    assert "RLIMIT_NOFILE, the limit on descriptors of this process (ulimit -n), is " in notes


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")
def test_a_full_file_system(tmp_path: Path, run_command: RunCommand) -> None:
    """Where /dev/shm has no room for the arguments, that is what the error says."""
    script = tmp_path / "launcher.py"
    script.write_text(FULL)
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    seccomp = (sys.executable, conftest.HERE / "seccomp.py", "ENOSYS", "memfd_create")
    launcher = run_command(
        "unshare", "-m", "sh", "-c", mount, "-", *seccomp, sys.executable, script
    )

    number, note = probes.printed(launcher)

    assert number == errno.ENOSPC
    assert note.startswith("Function and arguments did not fit into /dev/shm: ")
    assert note.endswith(" of 1048576 bytes are free.")


FULL = """
import errno, json
import flamespawn, jobs

if __name__ == "__main__":
    try:
        flamespawn.spawn(jobs.nothing, (b"x" * (2 << 20),), 2)
    except OSError as error:
        print(json.dumps([error.errno, *error.__notes__]))
    flamespawn.spawn(jobs.nothing, nprocs=2)
"""


FILE_SIZE = """
import json, resource
import flamespawn, jobs

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    try:
        flamespawn.spawn(jobs.nothing, (b"x" * (2 << 20),), 2)
    except OSError as error:
        print(json.dumps([error.errno, *error.__notes__]))
"""


def test_the_limit_on_the_size_of_files(run_launcher: RunCommand) -> None:
    """RLIMIT_FSIZE holds for files in memory as well, and is named with its value."""
    number, note = probes.printed(run_launcher(FILE_SIZE))

    assert number == errno.EFBIG
    assert "RLIMIT_FSIZE, the limit on the size of files (ulimit -f), is 1048576." in note


NO_MEMORY = """
import errno, json, sys
import flamespawn, jobs

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    import seccomp
    flamespawn.start_processes(jobs.nothing, start_method=sys.argv[1])
    seccomp.install(["clone", "clone3"], errno.ENOMEM)
    try:
        flamespawn.start_processes(jobs.nothing, nprocs=2, start_method=sys.argv[1])
    except OSError as error:
        print(json.dumps([error.errno, error.__notes__]))
"""


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_no_memory_for_a_process(start_method: str, run_launcher: RunCommand) -> None:
    """The limits on memory that there are, and what is available, are named."""
    number, notes = probes.printed(run_launcher(NO_MEMORY, start_method, conftest.HERE))

    assert number == errno.ENOMEM
    assert notes[-1].startswith("MemAvailable of the system is ")


def test_the_environment_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large to be handed to a program is named with its size."""
    monkeypatch.setenv("FLAMESPAWN_TEST", "x" * (1 << 20))

    with pytest.raises(OSError, match="Argument list too long") as caught:
        flamespawn.spawn(probes.descriptors, nprocs=2)

    assert caught.value.errno == errno.E2BIG
    assert any("The environment takes 1" in note for note in caught.value.__notes__)
