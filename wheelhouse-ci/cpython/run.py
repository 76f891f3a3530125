"""
Run CPython's own tests of the start method "spawn", and of what is built on it.

Usage: run.py {spawn,main,futures} [PATTERN...]

`wheelhouse-ci/test-cpython` runs it. Which start method it is has been decided before: flamespawn's
if it is installed at the start of the interpreter. What `exceptions.toml` names is left out.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fnmatch
import importlib
import multiprocessing
import sys
import tempfile
import tomllib
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")

# The module, and which of its tests. Installations may lack some of the modules.
PARTS = {
    "spawn": ("spawn_tests", "*"),
    "main": ("test.test_multiprocessing_main_handling", "*Spawn*"),
    "futures": ("test.test_concurrent_futures", "*[Ss]pawn*"),
}

# What surrounds this is to find it ended, after it has said where it was.
SECONDS = 840


def is_ours() -> bool:
    """Return whether multiprocessing starts processes by flamespawn."""
    return type(multiprocessing.get_context("spawn")).__module__.startswith("flamespawn")


def flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def matches(test: unittest.TestCase, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(test.id(), pattern) for pattern in patterns)


def main(part: str, *patterns: str) -> int:
    name, of_interest = PARTS[part]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        print(f"{part}: this CPython has been installed without {name}")
        return 0
    tests = [
        test
        for test in flat(unittest.defaultTestLoader.loadTestsFromModule(module))
        if matches(test, [of_interest]) and matches(test, patterns or ["*"])
    ]
    listed = tomllib.loads(EXCEPTIONS.read_text())
    exceptions = [*listed["cpython"], *(listed["flamespawn"] if is_ours() else ())]
    chosen = [test for test in tests if not matches(test, [f"*.{end}" for end in exceptions])]
    # Some write to the current directory.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(chosen))
    failed = sorted({test.id() for test, _ in result.failures + result.errors})
    print(
        f"{part}, {'flamespawn' if is_ours() else 'multiprocessing'}: {result.testsRun} run, "
        f"{len(failed)} failed, {len(result.skipped)} skipped by CPython, "
        f"{len(tests) - len(chosen)} left out"
    )
    for name in failed:
        print("failed:", name)
    return bool(failed)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    sys.exit(main(*sys.argv[1:]))
