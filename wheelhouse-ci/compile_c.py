"""
Compile csrc/ and the C tests for every target but Windows, and take each warning for an error.

Usage: compile_c.py [TARGET...]   (all of targets.toml where none is named)

Needs Python 3.11 with ziglang, and nothing else. zig keeps what it has compiled in
ZIG_GLOBAL_CACHE_DIR.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from targets import ROOT, Target, load

FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pthread"]
TESTS = ROOT / "tests" / "c"


def systems() -> dict[str, set[str]]:
    """Return for each system the suffixes of the files that belong to it."""
    text = (ROOT / "csrc" / "systems.txt").read_text("utf-8")
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {system: {"", *suffixes.split()} for system, _, suffixes in lines}


def sources(folder: Path, suffixes: set[str], prefix: str = "") -> list[Path]:
    """Return the C files for systems with these suffixes."""
    files = sorted(folder.glob(f"{prefix}*.c"))
    return [file for file in files if file.stem.partition(".")[2] in suffixes]


def run(folder: Path, *words: object) -> None:
    """
    Run a command.

    Raises:
        SystemExit: it failed, or had something to say; that comes first.
    """
    result = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode or result.stdout:
        msg = f"{result.stdout}\nin {folder}, with {result.returncode}: {' '.join(map(str, words))}"
        raise SystemExit(msg)


def compile_for(target: Target, suffixes: set[str]) -> str:
    """Compile the library, and link each test with it; return what was done."""
    folder = ROOT / "build" / "cross" / target.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cc = [sys.executable, "-m", "ziglang", "cc", "-target", target.zig, *FLAGS]
    cc += [f"-I{ROOT / 'csrc'}", f"-I{TESTS}"]
    library = sources(ROOT / "csrc", suffixes)
    tests = sources(TESTS, suffixes, "test_")
    helpers = [file for file in sources(TESTS, suffixes) if file not in tests]
    # zig makes one object of all files.
    run(folder, *cc, "-c", *library, *helpers)
    for test in tests:
        run(folder, *cc, "-o", test.stem, test, *folder.glob("*.o"))
    return f"{target.name}: {len(library)} files of csrc/, {len(tests)} tests"


def main() -> None:
    matrix = load()
    os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(ROOT / "build" / "zig"))
    chosen = matrix.select(sys.argv[1:], matrix.targets + matrix.compiled)
    known = systems()
    # What is for Windows is compiled by `make test-windows-c`, as strictly.
    chosen = [target for target in chosen if target.system != "win"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for line in pool.map(lambda target: compile_for(target, known[target.system]), chosen):
            print(line)


if __name__ == "__main__":
    main()
