"""
Compare what cibuildwheel would build, by pyproject.toml, with the targets of targets.toml.

Every target on every CPython, and nothing else: no free-threaded one, no 32-bit one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from targets import ROOT, load

CIBUILDWHEEL = Path(sys.executable).with_name("cibuildwheel")
PLATFORMS = ("linux", "macos", "windows")


def identifiers(platform: str) -> set[str]:
    """Return what cibuildwheel would build on a machine with this system."""
    # What a workflow may have set for itself.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    result = subprocess.run(
        [CIBUILDWHEEL, "--platform", platform, "--archs", "all", "--print-build-identifiers", ROOT],
        env=clean,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


def main() -> None:
    matrix = load()
    expected = {name for target in matrix.targets for name in matrix.identifiers(target)}
    found = set().union(*map(identifiers, PLATFORMS))
    if found != expected:
        raise SystemExit(
            f"only cibuildwheel builds: {sorted(found - expected)}\n"
            f"only targets.toml has: {sorted(expected - found)}"
        )
    print(f"cibuildwheel and targets.toml agree on {len(found)} identifiers")


if __name__ == "__main__":
    main()
