"""
Kernels that lack calls, and containers that refuse them.

Each call behind a fall-back is refused alone, and all of them together, by a real filter of the
kernel: with ENOSYS as an old kernel does it, and with EPERM as container runtimes do it (Docker
before 20.10, and profiles written by hand).

Facts that these tests rely on:

- glibc 2.34 and later falls back from clone3() on ENOSYS only. With EPERM no program can start a
  thread, whoever wrote it, so that is not among the cases; Docker answers ENOSYS since 20.10.10.
- gVisor has neither pidfds nor CLONE_PIDFD, and everything else that is used here.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import conftest

if sys.platform != "linux":
    pytest.skip("Linux only: filters of system calls", allow_module_level=True)

ROOT = conftest.HERE.parent
TIME_LIMIT = 1500

# The calls, and the name of the feature that goes with each.
CALLS = {
    "pidfd_open": "FEATURE_PIDFD",
    "pidfd_send_signal": "FEATURE_PIDFD",
    "epoll_pwait2": "FEATURE_PWAIT2",
    "clone3": None,
    "clone_pidfd": "FEATURE_CLONE_PIDFD",
    "close_range": "FEATURE_CLOSE_RANGE",
    "memfd_create": "memfd",
}
ALL = ",".join(CALLS)
ALL_BUT_CLONE3 = ",".join(name for name in CALLS if name != "clone3")

ALONE = [
    *(("ENOSYS", name) for name in CALLS if name != "clone_pidfd"),
    *(("EPERM", name) for name in CALLS if name != "clone3"),
]
TOGETHER = [
    ("ENOSYS", ALL),
    ("EPERM", ALL_BUT_CLONE3),
    ("ENOSYS", "pidfd_open,pidfd_send_signal,clone_pidfd"),
]
# What depends on what the system offers.
TESTS = ("join", "failure", "by_hand", "start", "payload", "buffers", "processes")


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Whole test runs take longer than a test may elsewhere."""
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def run(error: str, names: str, *command: str, **environment: str) -> str:
    """Run Python where the calls of these names are refused, and return what it prints."""
    prefix = [sys.executable, "tests/seccomp.py", error, names] if names else []
    result = subprocess.run(
        [*prefix, sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=TIME_LIMIT - 60,
        # A folder for temporary files within ours would have too long a name for sockets.
        env={name: value for name, value in os.environ.items() if name != "TMPDIR"} | environment,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


OFFERED = """
import json
from flamespawn import _native, _system_posix
features = _native.probe()
names = [name for name in dir(_native) if name.startswith("FEATURE_")]
offered = [name for name in names if features & getattr(_native, name)]
print(json.dumps(offered + ["memfd"] * _system_posix.has_memfd()))
"""


@pytest.mark.parametrize(("error", "names"), [*ALONE, *TOGETHER])
def test_the_probe_sees_what_is_refused(error: str, names: str) -> None:
    """A call that is refused takes its own feature away and no other."""
    everything = set(json.loads(run(error, "", "-c", OFFERED)))
    lost = {CALLS[name] for name in names.split(",")}

    assert set(json.loads(run(error, names, "-c", OFFERED))) == everything - lost


@pytest.mark.parametrize(("error", "names"), [*ALONE, *TOGETHER])
def test_a_job_where_a_call_is_refused(error: str, names: str) -> None:
    """Ranks of every start method get their arguments, and failures are named."""
    assert run(error, names, "wheelhouse-ci/smoke.py").startswith("smoke: ")


UNBUILT = """
import os, signal
del os.pidfd_open, os.P_PIDFD, os.memfd_create, signal.pidfd_send_signal
"""


def test_an_interpreter_that_lacks_calls(tmp_path: Path) -> None:
    """Built with the headers of an old system, as conda's are, Python lacks what the kernel has."""
    (tmp_path / "sitecustomize.py").write_text(UNBUILT)
    there = {"PYTHONPATH": str(tmp_path)}

    assert run("", "", "-c", OFFERED, **there) == run("", "", "-c", OFFERED)
    assert run("", "", "wheelhouse-ci/smoke.py", **there).startswith("smoke: ")


@pytest.mark.oldkernel
@pytest.mark.parametrize(("error", "names"), [*TOGETHER[:2], *ALONE])
def test_the_same_tests_pass(error: str, names: str) -> None:
    """The tests of starting, joining and arguments pass as they do with everything there."""
    files = [f"tests/test_{name}.py" for name in TESTS]
    # As the system is, that is; and those that bring filters of their own have their own run.
    which = ["-m", "not slow", "-k", "not threads and not refuses"]
    options = ["-q", "-p", "no:cacheprovider", *which]

    assert " passed" in run(error, names, "-m", "pytest", *options, *files)
