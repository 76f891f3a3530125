"""The command line: hands seeds to workers, and shows what they report."""

from __future__ import annotations

import argparse
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chaos import plan, remains, worker

_JOBS = 100


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description="Run random jobs.")
    parser.add_argument("--jobs", type=int, help="how many; 100, or 1 with --only")
    parser.add_argument("--seed", type=int, default=0, help="the first one's; then one after it")
    parser.add_argument("--workers", type=int, default=4 * (os.cpu_count() or 1))
    parser.add_argument("--delay", type=float, default=300, help="the longest wait of a rank, ms")
    parser.add_argument("--order", type=float, default=0.3, help="see the oracle, seconds")
    parser.add_argument("--only", type=int, help="run the job of this seed again and again")
    parser.add_argument("--stories", type=Path, help="a folder for the whole story of each fault")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


class Worker:
    """A worker process that has one job at a time."""

    def __init__(self, number: int, scratch: Path, options: argparse.Namespace) -> None:
        self.mark = f"{os.getpid()}-{number}"
        self.seed: int | None = None
        command = [sys.executable, Path(__file__).parent, "--worker", scratch]
        command += ["--delay", str(options.delay), "--order", str(options.order)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, remains.MARK: self.mark},
            text=True,
        )

    def give(self, seed: int) -> None:
        self.seed = seed
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()

    def take(self) -> dict[str, Any]:
        """Return the report on the job, also where the worker has died of it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        seed, self.seed = self.seed, None
        if not line:
            fault = f"the worker ended with {self.process.wait()}"
            return {"seed": seed, "seconds": 0, "faults": [fault], "gaps": {}, "seen": {}}
        report: dict[str, Any] = json.loads(line)
        return report

    def end(self) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()
            if self.seed is not None:
                self.process.kill()
        remains.end_all(self.mark)


class Tally:
    """Sums up, and shows faults as they come."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._began = time.monotonic()
        self._times: list[float] = []
        self._gaps: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self.failed: list[int] = []

    def add(self, report: dict[str, Any]) -> None:
        self._times.append(report["seconds"])
        self._gaps.update(report["gaps"])
        self._seen.update(report["seen"])
        if report["faults"]:
            self.failed.append(report["seed"])
            self._show(report)
        if len(self._times) % 500 == 0:
            self._say(f"{len(self._times)} jobs, {len(self.failed)} with faults")

    def _show(self, report: dict[str, Any]) -> None:
        seed = report["seed"]
        self._say(f"FAULT in the job of seed {seed}")
        for fault in report["faults"]:
            self._say(f"  {fault}")
        self._say(f"  again: python tests/chaos --only {seed} --delay {self._options.delay:g}")
        if self._options.stories is not None:
            self._options.stories.mkdir(parents=True, exist_ok=True)
            path = self._options.stories / f"{seed}-{len(self._times)}.json"
            path.write_text(json.dumps(report, indent=1))

    @staticmethod
    def _say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def sum_up(self) -> None:
        seconds = time.monotonic() - self._began
        self._say("\nWhat was seen:")
        for name, count in sorted(self._seen.items()):
            self._say(f"  {count:7} {name}")
        if +self._gaps:
            self._say("Not promised yet:")
            for name, count in sorted((+self._gaps).items()):
                self._say(f"  {count:7} {name}")
        times = sorted(self._times)
        self._say(
            f"{len(times)} jobs in {seconds:.0f} s (median {times[len(times) // 2]:.2f} s, "
            f"longest {times[-1]:.2f} s), {len(self.failed)} with faults"
            + (f": {' '.join(map(str, self.failed))}" if self.failed else "")
        )


def _drive(options: argparse.Namespace, scratch: Path) -> Tally:
    """Give each worker a seed whenever it has none."""
    if options.only is not None:
        waiting = [options.only] * (options.jobs or 1)
    else:
        waiting = list(range(options.seed, options.seed + (options.jobs or _JOBS)))[::-1]
    tally = Tally(options)
    workers = []
    started = 0
    selector = selectors.DefaultSelector()
    try:
        while waiting or selector.get_map():
            while waiting and len(selector.get_map()) < options.workers:
                workers.append(Worker(started, scratch, options))
                started += 1
                selector.register(workers[-1].process.stdout, selectors.EVENT_READ, workers[-1])
                workers[-1].give(waiting.pop())
            for key, _ in selector.select():
                tally.add(key.data.take())
                if key.data.process.poll() is None and waiting:
                    key.data.give(waiting.pop())
                else:
                    selector.unregister(key.fileobj)
    finally:
        for one in workers:
            one.end()
        selector.close()
    return tally


def main() -> tuple[plan.Job, str, str] | None:
    """Be the command; in a launcher, which is a fork of a worker, return what it is to do."""
    options = _arguments()
    if options.worker is not None:
        found = worker.serve(options.worker, options.delay / 1000, options.order)
        return found and (found[0], str(found[1]), str(found[1] / "notes"))
    remains.become_subreaper()
    scratch = Path(tempfile.mkdtemp(prefix="flamespawn-chaos-"))
    try:
        tally = _drive(options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    tally.sum_up()
    if tally.failed:
        sys.exit(1)
    return None
