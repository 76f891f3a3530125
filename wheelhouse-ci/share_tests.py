"""
Run the files of tests, each in a pytest of its own, several at a time.

Usage: share_tests.py PROCESSES [FILE OF TESTS | ARGUMENT OF PYTEST]...

Without a file it is all of them.

One line for each file when it is through, all that pytest said about those with failures, and a
summary at the end: why tests were skipped, how many, and which files failed. Runs on any CPython
that has pytest, and needs nothing else.
"""

from __future__ import annotations

import collections
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
SECONDS = 600
NO_TESTS = 5
# A console that all ranks of a pytest inherit. Otherwise Wine starts one for each rank, which keeps
# open what the rank has inherited.
CONSOLE = getattr(subprocess, "CREATE_NO_WINDOW", 0)
COUNT = re.compile(r"(\d+) (passed|failed|skipped|xfailed|xpassed|errors?)\b")
# What faulthandler begins with, and its lines for our tests: all that is known of a pytest that was
# ended in the middle of one.
DISASTER = re.compile(r"^(?:Timeout \(|Windows fatal|Fatal Python error).*$", re.MULTILINE)
PLACE = re.compile(r'File ".*[\\/](test_\w+\.py)", line (\d+) in (\w+)')
# CreateProcess of Wine 8, once in some thousand starts on a busy machine: the new process has ended
# with code 0 before it has loaded anything, as NtCreateUserProcess() says it there.
LOST = "[WinError 1359] CreateProcessW"
SKIPPED = re.compile(r"^SKIPPED \[(\d+)\] [^:]+(?::\d+)?: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What has come of a file."""

    name: str
    seconds: float
    status: int | None
    output: str

    @property
    def is_good(self) -> bool:
        """Whether nothing failed; a file may have no test that was asked for."""
        return self.status in {0, NO_TESTS}

    @property
    def is_wine_to_blame(self) -> bool:
        return not self.is_good and LOST in self.output

    @property
    def last_line(self) -> str:
        lines = self.output.strip().splitlines()
        return lines[-1] if lines else ""

    def describe(self) -> str:
        state = "ok" if self.is_good else "FAILED"
        if self.status is None:
            state = f"FAILED, ended after {SECONDS} s"
        text = f"{self.name}: {state}, {self.seconds:.0f} s: {self.last_line}"
        disasters = DISASTER.findall(self.output)
        if disasters:
            places = [":".join(place) for place in PLACE.findall(self.output)]
            text += f" (status {self.status}: {disasters[-1]} {'; '.join(places)})"
        return text


def run(path: Path, arguments: list[str]) -> Result:
    """Run one file; what it prints goes to a file, which no child of it keeps us from reading."""
    start = time.monotonic()
    with (
        tempfile.TemporaryFile() as output,
        # Several pytests that clean up in one folder get in each other's way.
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        own = [f"--basetemp={folder}/t", str(path)]
        command = [sys.executable, "-m", "pytest", *arguments, *own]
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, creationflags=CONSOLE
        )
        status: int | None
        try:
            status = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Result(path.name, time.monotonic() - start, status, text)


def run_again_if_lost(path: Path, arguments: list[str]) -> Result:
    """Run one file, and once more if Wine has lost one of its processes; the second run counts."""
    result = run(path, arguments)
    if result.is_wine_to_blame:
        print(f"{path.name}: Wine has lost a process ({LOST}), again:", flush=True)
        result = run(path, arguments)
    return result


def summarize(results: list[Result]) -> None:
    reasons: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    for result in results:
        for number, reason in SKIPPED.findall(result.output):
            reasons[reason.strip()] += int(number)
        for number, what in COUNT.findall(result.last_line):
            counts[what.rstrip("s")] += int(number)
    print("\nskipped because of:")
    for reason, number in sorted(reasons.items()):
        print(f"{number:5} {reason}")
    print("\n" + ", ".join(f"{number} {what}" for what, number in sorted(counts.items())))
    for result in results:
        if not result.is_good:
            print(result.describe())


def main() -> int:
    processes = int(sys.argv[1])
    named = [word for word in sys.argv[2:] if word.endswith(".py")]
    arguments = [word for word in sys.argv[2:] if word not in named]
    # The longest first: the last one to end is then a short one.
    paths = [*map(Path, named)] or TESTS.glob("test_*.py")
    files = sorted(paths, key=os.path.getsize, reverse=True)
    results: list[Result] = []
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        jobs = [pool.submit(run_again_if_lost, path, arguments) for path in files]
        for job in concurrent.futures.as_completed(jobs):
            result = job.result()
            results.append(result)
            if not result.is_good:
                print(result.output)
            print(result.describe(), flush=True)
    summarize(results)
    return 0 if all(result.is_good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
