"""What every test gets: a watchdog, and a check that it leaves nothing behind."""

from __future__ import annotations

import faulthandler
import gc
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_sharer
from pathlib import Path
from typing import Any

import psutil
import pytest

import flamespawn
from flamespawn import _context, _launch, _native, _platform

ON_WINDOWS = os.name == "nt"
if ON_WINDOWS:
    from system_windows import (
        alarm,
        children,
        descriptors,
        end_session,
        is_wine,
        os_threads,
        session,
    )
else:
    from system_posix import alarm, children, descriptors, end_session, os_threads, session

# The watchdog's, and under qemu one of its own.
FOREIGN_THREADS = os_threads() - threading.active_count() + 1
START_METHODS = multiprocessing.get_all_start_methods()
HERE = Path(__file__).parent
WATCHDOG_SECONDS = 120
# For what does not heed the signal that comes first.
SECONDS_UNTIL_EXIT = WATCHDOG_SECONDS if ON_WINDOWS else WATCHDOG_SECONDS + 30
STDERR = pytest.StashKey[int]()


def temporary_files() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if not name.startswith("pytest-of-")}


def pytest_configure(config: pytest.Config) -> None:
    """Keep the real stderr for the watchdog, as nobody reads what is captured; heed signals."""
    if not ON_WINDOWS:
        # What a shell runs in the background ignores the first, and what nohup runs the second.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.stash[STDERR] = os.dup(2)
    os.set_inheritable(config.stash[STDERR], False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on Windows what is about something that only other systems have, or that Wine lacks."""
    for item in items:
        marker = item.get_closest_marker("posix")
        if not ON_WINDOWS:
            continue
        lacking = item.get_closest_marker("wine")
        if lacking is not None and is_wine():
            item.add_marker(pytest.mark.skip(reason=f"Wine lacks: {lacking.args[0]}"))
        if marker is not None:
            item.add_marker(pytest.mark.skip(reason=f"POSIX only: {marker.args[0]}"))
        methods = {"fork", "forkserver"}.intersection(re.split(r"[\[\]-]", item.name))
        if methods:
            item.add_marker(pytest.mark.skip(reason=f"POSIX only: {methods.pop()}"))


def describe(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())[:60]
        return f"{process.pid} {process.status()} {process.num_threads()} {command}"
    except psutil.NoSuchProcess:
        return f"{process.pid} gone"


def fail_late_test(*_: object) -> None:
    """Fail in the middle of a test, and say what it may be waiting for."""
    processes = map(describe, psutil.Process().children(recursive=True))
    pytest.fail("\n".join([f"no end after {WATCHDOG_SECONDS} s; its processes:", *processes]))


@pytest.fixture(autouse=True)
def watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that hangs: by an exception where there is an alarm, then with everything."""
    stderr = request.config.stash[STDERR]
    faulthandler.dump_traceback_later(SECONDS_UNTIL_EXIT, exit=True, file=stderr)
    with alarm(WATCHDOG_SECONDS, fail_late_test):
        yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the tests a folder for temporary files that nobody else writes to."""
    tempfile.tempdir = os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("t"))


@pytest.fixture(scope="session", autouse=True)
def warm_up(temporary_folder: None) -> None:
    """Let multiprocessing start its helpers before anybody counts processes."""
    multiprocessing.set_forkserver_preload([])
    # The memory of shared values, which it keeps as well.
    multiprocessing.RawValue("i")
    if ON_WINDOWS:
        # The thread that hands sockets to processes.
        resource_sharer._resource_sharer._start()
    for start_method in {"spawn", "forkserver"}.intersection(START_METHODS):
        flamespawn.start_processes(print, ("",), start_method=start_method)


@pytest.fixture(autouse=True)
def nothing_left_behind(watchdog: None, warm_up: None) -> Iterator[None]:
    """No descriptor, child, thread or temporary file outlives a test."""
    gc.collect()
    # What is there now is not looked at again: pytest's own objects take longer than most tests.
    gc.freeze()
    before = descriptors(), threading.active_count(), temporary_files()
    yield
    for child in children():
        try:
            process = psutil.Process(child)
            if process.status() == psutil.STATUS_DEAD:
                # Nobody waits for it where SIGCHLD is ignored: it is gone in a moment.
                continue
            process.kill()
            process.wait()
        except psutil.NoSuchProcess:
            continue
        pytest.fail(f"left a child: {child}")
    gc.collect()
    after = descriptors(), threading.active_count(), temporary_files()
    assert after == before
    # The kernel does not tell when a detached thread is gone.
    deadline = time.monotonic() + 10
    allowed = threading.active_count() + FOREIGN_THREADS
    while os_threads() > allowed and time.monotonic() < deadline:
        time.sleep(0.001)
    assert os_threads() <= allowed


@pytest.fixture(params=["handles", "threads"])
def mechanism(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test as this system is, and as if it could not tell of the end of a process."""
    if request.param == "threads":
        if ON_WINDOWS:
            pytest.skip("POSIX only: Windows has a handle for each process")
        for module in (_context, _launch):
            monkeypatch.setattr(module, "features", lambda: 0)
        return "threads"
    told = _native.FEATURE_PIDFD | _native.FEATURE_PID_EVENTS
    return "handles" if _platform.features() & told else "threads"


@pytest.fixture
def run_command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command that finds the tests' modules; it and its session are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*command: object, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [str(word) for word in command],
            env=environment | dict(options.pop("env", {})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **session(),
            **options,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        end_session(process)
        process.communicate()
    # On Windows each has a handle.
    started.clear()


@pytest.fixture
def run_launcher(
    tmp_path: Path, run_command: Callable[..., subprocess.Popen[str]]
) -> Callable[..., subprocess.Popen[str]]:
    """Start a launcher of its own from source text."""
    numbers = itertools.count()

    def run(
        source: str, *args: object, prefix: tuple[str, ...] = (), **options: Any
    ) -> subprocess.Popen[str]:
        script = tmp_path / f"launcher{next(numbers)}.py"
        script.write_text(source)
        return run_command(*prefix, sys.executable, script, *args, **options)

    return run
