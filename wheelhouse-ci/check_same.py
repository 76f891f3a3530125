"""
Build everything twice, in different folders and circumstances, and compare the bytes.

Usage: check_same.py [TARGET...]
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from build_wheels import export, prepare_environment

# What differs from one machine to the next, and must not be seen in what is built.
CIRCUMSTANCES = (
    {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"},
    {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"},
)


def build(source: Path, circumstances: dict[str, str], targets: list[str]) -> dict[str, str]:
    """Build in a folder, and return the hash of each file."""
    out = source.parent / "out"
    subprocess.run(
        [sys.executable, source / "wheelhouse-ci" / "build_wheels.py", "--out", out, *targets],
        env=os.environ | circumstances,
        check=True,
    )
    files = sorted(out.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main() -> None:
    # The time of the last commit, which the copies cannot tell.
    prepare_environment()
    with tempfile.TemporaryDirectory() as name:
        folders = (Path(name) / "a" / "b", Path(name) / "another" / "folder")
        # Both before the first is built: somebody may go on with the source meanwhile.
        sources = [export(folder) for folder in folders]
        first, second = (
            build(source, circumstances, sys.argv[1:])
            for source, circumstances in zip(sources, CIRCUMSTANCES, strict=True)
        )
    different = sorted(name for name in first | second if first.get(name) != second.get(name))
    if different:
        raise SystemExit(f"not the same bytes: {', '.join(different)}")
    for file, digest in first.items():
        print(f"{digest}  {file}")


if __name__ == "__main__":
    main()
