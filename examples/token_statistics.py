"""
Token statistics of Python's own standard library, counted by several processes.

Run it with

    python examples/token_statistics.py
    python examples/token_statistics.py --ranks 4 --limit-mb 0

The first part splits the library's source files among the ranks, starts these with
`flamespawn.spawn`, and compares what they found with a count by this process alone. The second
part shows what the launcher gets, and what becomes of the other ranks, when one rank fails.

Each rank is a fresh interpreter that imports this file to find its function. That is why the
functions of the ranks are at the top level, and why nothing starts before the last two lines.
"""

from __future__ import annotations

import argparse
import heapq
import keyword
import multiprocessing
import os
import pickle
import random
import sys
import sysconfig
import tempfile
import time
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path

import flamespawn

# How often each token occurs: its kind, and for a name also its text.
Statistics = Counter[tuple[str, str]]


def find_sources(limit: float) -> list[Path]:
    """Return the library's files, or a random sample of *limit* bytes: the same in each run."""
    library = Path(sysconfig.get_path("stdlib"))
    installed = {"site-packages", "dist-packages"}
    files = sorted(path for path in library.rglob("*.py") if installed.isdisjoint(path.parts))
    random.Random(0).shuffle(files)
    sample = []
    for path in files:
        limit -= path.stat().st_size
        if limit < 0:
            break
        sample.append(path)
    return sample


def split(paths: Sequence[Path], parts: int) -> list[list[Path]]:
    """Return shares of about the same size: the largest file first, each to the least loaded."""
    shares: list[list[Path]] = [[] for _ in range(parts)]
    loads = [(0, index) for index in range(parts)]
    sizes = {path: path.stat().st_size for path in paths}
    for path in sorted(paths, key=sizes.__getitem__, reverse=True):
        load, index = loads[0]
        shares[index].append(path)
        heapq.heapreplace(loads, (load + sizes[path], index))
    return shares


def read_tokens(path: Path) -> list[tuple[str, str]]:
    """Return kind and text of each token, without the text where it is not a name."""
    with path.open("rb") as file:
        return [
            (tokenize.tok_name[token.type], token.string if token.type == tokenize.NAME else "")
            for token in tokenize.tokenize(file.readline)
        ]


def count_tokens(paths: Sequence[Path]) -> Statistics:
    """Count the tokens of some files: the work that is to be shared."""
    statistics: Statistics = Counter()
    for path in paths:
        try:
            statistics.update(read_tokens(path))
        except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
            # The library's own tests come with files that are broken on purpose.
            continue
    return statistics


def count_share(rank: int, shares: Sequence[Sequence[Path]], directory: Path) -> None:
    """
    Count the tokens of one share; runs in a rank.

    The result goes into a file, because what this function returns would be ignored. A queue does
    not fit: a rank that puts much into it cannot end before somebody has read it, and `spawn`
    returns when all ranks have ended.
    """
    start = time.perf_counter()
    statistics = count_tokens(shares[rank])
    seconds = time.perf_counter() - start
    (directory / f"rank-{rank}").write_bytes(pickle.dumps((statistics, seconds)))


def count_on_ranks(paths: Sequence[Path], ranks: int) -> Statistics:
    """Count the tokens on *ranks* processes and print what each of them did."""
    shares = split(paths, ranks)
    total: Statistics = Counter()
    with tempfile.TemporaryDirectory() as directory:
        flamespawn.spawn(count_share, args=(shares, Path(directory)), nprocs=ranks)
        print(f"{'rank':>4} {'files':>7} {'tokens':>11} {'seconds':>8}")
        for rank in range(ranks):
            statistics, seconds = pickle.loads(Path(directory, f"rank-{rank}").read_bytes())
            files, tokens = len(shares[rank]), statistics.total()
            print(f"{rank:>4} {files:>7} {tokens:>11,} {seconds:>8.2f}")
            total.update(statistics)
    return total


def compare(paths: Sequence[Path], ranks: int) -> Statistics:
    """Count on the ranks and in this process; exit if the results are not the same."""
    start = time.perf_counter()
    together = count_on_ranks(paths, ranks)
    shared = time.perf_counter() - start
    start = time.perf_counter()
    alone = count_tokens(paths)
    single = time.perf_counter() - start
    if together != alone:
        sys.exit("error: the ranks and the single process have counted different tokens")
    print(f"\nall ranks, start and end included: {shared:6.2f} s")
    print(f"one process, with the same result: {single:6.2f} s")
    print(f"speed-up:                          {single / shared:6.2f}")
    return together


def print_table(statistics: Statistics, rows: int = 8) -> None:
    """Print the most common keywords and identifiers."""

    def most_common(*, keywords: bool) -> Iterator[tuple[str, int]]:
        for (kind, word), number in statistics.most_common():
            if kind == "NAME" and keyword.iskeyword(word) == keywords:
                yield word, number

    print(f"\n{'keyword':<12} {'number':>9}    {'identifier':<16} {'number':>9}")
    columns = most_common(keywords=True), most_common(keywords=False)
    for _, (word, number), (name, uses) in zip(range(rows), *columns, strict=False):
        print(f"{word:<12} {number:>9,}    {name:<16} {uses:>9,}")


def count_and_fail(
    rank: int,
    shares: Sequence[Sequence[Path]],
    unreadable: Path,
    all_at_work: Barrier,
    failed_at: Synchronized[float],
) -> None:
    """Count for many minutes, except in the last rank, which gets a file it cannot decode."""
    all_at_work.wait()
    if rank == len(shares) - 1:
        failed_at.value = time.monotonic()
        read_tokens(unreadable)
    for _ in range(1000):
        count_tokens(shares[rank])


def exists(pid: int) -> bool:
    """Return whether there is such a process, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def show_failure(paths: Sequence[Path], ranks: int) -> None:
    """Let one rank fail, and show what is known about it and what became of the others."""
    print(f"\nNow rank {ranks - 1} gets a file that is not UTF-8, while the others are at work.")
    context = multiprocessing.get_context("spawn")
    failed_at = context.Value("d", 0.0)
    with tempfile.TemporaryDirectory() as directory:
        unreadable = Path(directory, "latin_1.py")
        unreadable.write_bytes("# Le café est prêt\n".encode("latin-1"))
        args = (split(paths, ranks), unreadable, context.Barrier(ranks), failed_at)
        try:
            flamespawn.spawn(count_and_fail, args=args, nprocs=ranks)
        except flamespawn.ProcessRaisedException as error:
            # The clock is the same for all processes of a machine.
            seconds = time.monotonic() - failed_at.value
            failure = error
        else:
            sys.exit("error: a rank failed, and spawn() has not raised")

    print(f"spawn() has raised {type(failure).__name__}:{failure}")
    print(f"It comes from rank {failure.error_index}, pid {failure.pid}. Its note says:\n")
    print("\n".join(failure.__notes__))
    left = [fate.pid for fate in failure.fates if exists(fate.pid)]
    if left:
        sys.exit(f"error: these ranks are still there: {left}")
    print(f"\nNo rank is left, {seconds * 1000:.0f} ms after that file was opened.")


def main() -> None:
    """Read the command line and run both parts."""
    parser = argparse.ArgumentParser(description="Count the tokens of the standard library.")
    default = min(max(os.cpu_count() or 1, 2), 8)
    parser.add_argument(
        "--ranks", type=int, default=default, help="processes, at least 2 (default: %(default)s)"
    )
    parser.add_argument(
        "--limit-mb", type=float, default=10, help="how much to read; 0: all (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.ranks < 2:
        parser.error("--ranks must be at least 2")
    paths = find_sources(arguments.limit_mb * 1e6 or float("inf"))
    if not paths:
        sys.exit("error: there are no source files, or none that fits into --limit-mb")

    size = sum(path.stat().st_size for path in paths) / 1e6
    print(f"Tokens of {len(paths)} files, {size:.1f} MB, on {arguments.ranks} ranks:\n")
    print_table(compare(paths, arguments.ranks))
    show_failure(paths, arguments.ranks)


if __name__ == "__main__":
    main()
