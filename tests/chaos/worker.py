"""
Runs jobs one after the other: starts the launcher of each, sees to it, and looks at what is left.

A worker is a subreaper: every process of a job that loses its parent becomes its child. A launcher
is a fork of the worker that leaves `serve`, so that it ends as any interpreter does.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from chaos import expectations, oracle, plan, remains
from chaos.driver import MARGIN, Driver

_LOG_SIZE = 20000
_DESCRIPTORS = 64


def _be_launcher(folder: Path) -> None:
    """Make a forked worker a launcher: its own group, streams and temporary folder."""
    os.setpgid(0, 0)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, _DESCRIPTORS)
    # Shows all stacks when the driver gives up.
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    os.environ["TMPDIR"] = str(folder / "tmp")


def _clean_up(driver: Driver, job: plan.Job, mark: str, folder: Path) -> None:
    """Wait for what ends by itself, note what does not, and end it."""
    run = driver.run

    def may_stay() -> set[int] | None:
        driver.read_late_notes()
        return oracle.may_stay(job, run)

    began = time.monotonic()
    left = remains.wait_until_gone(mark, expectations.SETTLE, may_stay)
    if left:
        run.stopped = {pid for pid, one in left.items() if one.is_stopped}
        left = remains.wait_until_gone(mark, MARGIN, may_stay)
    run.settled = time.monotonic() - began
    there = {pid: one.name for pid, one in remains.find(mark).items() if not one.is_dead}
    run.left = {pid: name for pid, name in there.items() if pid in left}
    run.stayed = {pid: name for pid, name in there.items() if pid not in left}
    remains.end_all(mark)
    run.files = [str(path) for path in (folder / "tmp").rglob("*") if not path.is_dir()]
    run.log = (folder / "log").read_text(errors="replace")[-_LOG_SIZE:]


def run_job(job: plan.Job, scratch: Path, mark: str, order: float) -> dict[str, Any] | Path:
    """Run a job; return the report, or in its launcher the folder of the job."""
    folder = scratch / mark
    (folder / "tmp").mkdir(parents=True)
    (folder / "log").touch()
    os.mkfifo(folder / "notes")
    began = time.monotonic()
    fifo = os.open(folder / "notes", os.O_RDWR | os.O_NONBLOCK)
    launcher = os.fork()
    if launcher == 0:
        _be_launcher(folder)
        return folder
    try:
        driver = Driver(job, launcher, folder, fifo)
        run = driver.watch()
        result = folder / "result.json"
        if result.exists():
            run.result = json.loads(result.read_text())
        _clean_up(driver, job, mark, folder)
    finally:
        remains.end_all(mark)
        os.close(fifo)
    judged = oracle.judge(job, run, order)
    report: dict[str, Any] = {
        "seed": job.seed,
        "seconds": time.monotonic() - began,
        "faults": judged.faults,
        "gaps": judged.gaps,
        "seen": judged.seen,
    }
    if judged.faults:
        report["story"] = {
            "job": repr(job),
            "notes": run.notes.lines,
            "result": run.result,
            "status": run.status,
            "left": {**run.left, **run.stayed},
            "log": run.log,
        }
    shutil.rmtree(folder)
    return report


def serve(scratch: Path, longest: float, order: float) -> tuple[plan.Job, Path] | None:
    """Run the jobs whose seeds come from stdin. Returns in each launcher, too, with its job."""
    mark = os.environ[remains.MARK]
    remains.become_subreaper()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        job = plan.make(int(line), longest)
        report = run_job(job, scratch, mark, order)
        if isinstance(report, Path):
            return job, report
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
    return None
