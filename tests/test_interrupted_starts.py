"""Starts that are interrupted at any line: a sample of what `interrupted.py` does with all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

import conftest

if conftest.ON_WINDOWS:
    pytest.skip("POSIX only: starts in forks of the launcher", allow_module_level=True)

RunCommand = Callable[..., "subprocess.Popen[str]"]

# So that a sample takes some seconds.
EVERY = {"spawn": 61, "fork": 29, "forkserver": 231}


@pytest.mark.parametrize("seed", [(), (1,)], ids=["once", "twice"])
@pytest.mark.parametrize("start_method", EVERY)
def test_an_interrupt_at_any_line_of_a_start(
    start_method: str, seed: tuple[int, ...], run_command: RunCommand
) -> None:
    """Nothing is left of it, and the next start works; a second interrupt makes no difference."""
    program = conftest.HERE / "interrupted.py"
    offset = 7 * len(seed)
    launcher = run_command(
        sys.executable, program, start_method, EVERY[start_method], offset, *seed
    )

    out, err = launcher.communicate(timeout=conftest.WATCHDOG_SECONDS - 10)

    assert (launcher.returncode, err) == (0, ""), out


def test_an_interrupt_of_the_first_start(run_command: RunCommand) -> None:
    """The same where the start includes that of multiprocessing's resource tracker."""
    program = conftest.HERE / "interrupted.py"
    launcher = run_command(sys.executable, program, "spawn", 301, 50, "--cold")

    out, err = launcher.communicate(timeout=conftest.WATCHDOG_SECONDS - 10)

    assert (launcher.returncode, err) == (0, ""), out
