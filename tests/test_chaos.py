"""A few random jobs. `make chaos` runs ten thousand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import conftest

if conftest.ON_WINDOWS:
    pytest.skip(
        "POSIX only: what the random jobs do to each other with signals", allow_module_level=True
    )

CHAOS = Path(__file__).parent / "chaos"
SECONDS = 100


@pytest.mark.parametrize("seed", [0, 999])
def test_random_jobs(seed: int, run_command: Callable[..., subprocess.Popen[str]]) -> None:
    """Whatever ranks, launcher and driver do, the verdict is right and nothing is left."""
    options = ("--jobs", 13, "--seed", seed, "--workers", 4, "--delay", 100)
    process = run_command(sys.executable, CHAOS, *options)
    out, err = process.communicate(timeout=SECONDS)

    assert process.returncode == 0, out + err
