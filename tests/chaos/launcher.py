"""Be the launcher of a job: do what the plan says, and write down what came of it."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

import flamespawn
from chaos import acts, remains
from chaos.plan import Job
from chaos.self_portrait import portrait

_JOINERS = 3


class BodyError(Exception):
    """What the block of a `with` statement raises."""


class Gate:
    """
    Lets SIGINT raise KeyboardInterrupt inside of what is called through it, and nowhere else.

    The code of this module is to see no interrupts: it has to write down what happened.
    """

    def __init__(self) -> None:
        self._open = False

    def __enter__(self) -> None:
        self._open = True

    def __exit__(self, *exc_info: object) -> None:
        self._open = False

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._open and frame is not None and frame.f_globals is not globals():
            raise KeyboardInterrupt


class Launcher:
    """
    Runs one job.

    Args:
        job: the job.
        fifo: where notes go.
    """

    def __init__(self, job: Job, fifo: str) -> None:
        self._job = job
        self._fifo = fifo
        self._gate = Gate()
        self._ends: list[threading.Thread] = []
        self._over = threading.Event()
        self._context: Any = None
        self.calls: list[dict[str, Any]] = []
        self.pids: list[int] = []
        self.started_at = 0
        self.left = False
        self.mishaps: list[str] = []

    # ------------------------------------------------------------------------------------- calls

    def call(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call, and write down when and how it ended."""
        record: dict[str, Any] = {"name": name, "began": time.monotonic_ns()}
        value = None
        before = len(self._context.sentinels) if self._context is not None else None
        try:
            with self._gate:
                value = function(*args, **options)
        except flamespawn.ProcessException as error:
            record["raised"] = type(error).__name__
            record["error"] = describe(error)
        except (KeyboardInterrupt, BodyError) as error:
            record["raised"] = type(error).__name__
            record["where"] = traceback.format_exc()[-3000:]
        except BaseException as error:
            record["raised"] = type(error).__name__
            record["unexpected"] = traceback.format_exc()
        record["ended"] = time.monotonic_ns()
        record["value"] = value if name in {"join", "rejoin"} else None
        if self._context is not None:
            record["progress"] = before != len(self._context.sentinels)
        self.calls.append(record)
        acts.note(self._fifo, "launcher", "called", name, record.get("raised", record["value"]))
        return value

    def _order(self, name: str, function: Callable[[], None]) -> None:
        """Call something that stops ranks."""
        acts.note(self._fifo, "launcher", "stops", name)
        self.call(name, function)

    @property
    def _has_outcome(self) -> bool:
        last = self.calls[-1]
        return "error" in last or "unexpected" in last or last["value"] is True

    # ------------------------------------------------------------------------------------ styles

    def run(self) -> None:
        job = self._job
        plans = [dataclasses.asdict(rank) for rank in job.ranks]
        options: dict[str, Any] = {
            "daemon": job.daemon,
            "start_method": job.start_method,
            "grace_period": job.grace,
        }
        args = (self._fifo, job.start_method, plans)
        acts.note(self._fifo, "launcher", "ready")
        if job.is_plain:
            self.call("spawn", flamespawn.start_processes, acts.run, args, len(plans), **options)
            return
        self._context = self.call(
            "start", flamespawn.start_processes, acts.run, args, len(plans), False, **options
        )
        if self._context is None:
            return
        self.pids = self._context.pids()
        self.started_at = time.monotonic_ns()
        acts.note(self._fifo, "launcher", "started", *self.pids)
        if job.leaves:
            self._leave()
            return
        self._end_later()
        if job.style != "with":
            time.sleep(job.late)
        styles = {"loop": self._loop, "with": self._with, "threads": self._threads}
        styles[job.style]()
        self._over.set()
        for thread in self._ends:
            thread.join()
        for _ in range(job.rejoins):
            self.call("rejoin", self._context.join, None)

    def _leave(self) -> None:
        """Look twice, and then exit."""
        for _ in range(2):
            self.call("join", self._context.join, 0)
        self.left = not self._has_outcome
        if self._job.leaves == "drop":
            self.left = False
            self.forget()

    def _loop(self) -> None:
        job = self._job
        turn = 0
        while True:
            timeout = job.timeouts[turn % len(job.timeouts)]
            self.call("join", self._context.join, timeout)
            self.calls[-1]["timeout"] = timeout
            if self._has_outcome:
                return
            if "raised" in self.calls[-1]:
                self._after_interrupt()
            elif timeout is not None and timeout <= 0:
                # The driver and the ranks want to run as well.
                time.sleep(0.005)
            turn += 1

    def _after_interrupt(self) -> None:
        if self._job.on_interrupt == "stop":
            self._order("stop", self._context.stop)
        elif self._job.on_interrupt == "kill":
            self._order("kill", self._context.kill)

    def _with(self) -> None:
        def block() -> None:
            with self._context:
                self._over.wait(self._job.late)
                if self._job.raises:
                    acts.note(self._fifo, "launcher", "stops", "raise")
                    raise BodyError

        self.call("with", block)
        if not self._has_outcome:
            self._loop()

    def _threads(self) -> None:
        """Join from several threads; all are to see the same."""
        seen: list[Any] = []
        over = [threading.Event() for _ in range(_JOINERS)]
        threads = [threading.Thread(target=self._join, args=(seen, event)) for event in over]
        for thread in threads:
            thread.start()
        # Not `Thread.join`, which takes a thread for dead when it is interrupted (CPython 3.11).
        for event in over:
            while not event.is_set():
                self.call("wait", event.wait)
                if "raised" in self.calls[-1]:
                    self._after_interrupt()
        for thread in threads:
            thread.join()
        self.calls.append({"name": "threads", "seen": seen, "began": 0, "ended": 0, "value": None})
        self._loop()

    def _join(self, seen: list[Any], over: threading.Event) -> None:
        timeout = self._job.timeouts[0]
        try:
            while not self._context.join(timeout):
                time.sleep(0 if timeout is None else 0.005)
            seen.append(True)
        except flamespawn.ProcessException as error:
            seen.append(describe(error))
        except BaseException:
            seen.append(traceback.format_exc())
        over.set()

    # -------------------------------------------------------------------------------- the ending

    def _end_later(self) -> None:
        thread = threading.Thread(target=self._end)
        thread.start()
        self._ends.append(thread)

    def _end(self) -> None:
        """End what has not ended by itself: first as the plan says, then surely."""
        job = self._job
        for ending in (job.ending, "stop"):
            if self._over.wait(job.patience):
                return
            acts.note(self._fifo, "launcher", "stops", ending)
            try:
                if ending == "interrupt":
                    os.kill(os.getpid(), signal.SIGINT)
                else:
                    getattr(self._context, ending)()
            except BaseException:
                self.mishaps.append(traceback.format_exc())

    def forget(self) -> None:
        self._context = None


def describe(error: flamespawn.ProcessException) -> dict[str, Any]:
    """Return all that an exception says, in short."""
    fates = [dataclasses.asdict(fate) for fate in error.fates]
    for fate in fates:
        for name in ("user_time", "system_time", "max_rss"):
            fate.pop(name)
    message = getattr(error, "error_message", None)
    return {
        "type": type(error).__name__,
        "index": error.error_index,
        "pid": error.pid,
        "text": error.msg[:300],
        "digest": hashlib.sha256(error.msg.encode(errors="backslashreplace")).hexdigest(),
        "exit_code": getattr(error, "exit_code", None),
        "signal_name": getattr(error, "signal_name", None),
        "error_type": getattr(error, "error_type", None),
        "error_size": None if message is None else len(message),
        "cause": None if error.__cause__ is None else type(error.__cause__).__name__,
        "notes": getattr(error, "__notes__", []),
        "fates": fates,
    }


def _start_helpers(start_method: str) -> set[int | None]:
    """Start what multiprocessing keeps for the life of a launcher; return the pids."""
    resource_tracker.ensure_running()
    # What is registered once and for ever is not a leak.
    flamespawn.start_processes(acts.nothing, start_method="fork")
    multiprocessing.set_forkserver_preload([])
    if start_method == "forkserver":
        # A server that is still starting is ended by a Ctrl-C.
        flamespawn.start_processes(acts.nothing, start_method="forkserver")
    return {resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid}


def main(job: Job, folder: str, fifo: str) -> None:
    """Be the launcher of a job."""
    launcher = Launcher(job, fifo)
    signal.signal(signal.SIGINT, launcher._gate.on_signal)
    helpers = _start_helpers(job.start_method)
    acts.note(fifo, "launcher", "helpers", *filter(None, helpers))
    gc.collect()
    before = portrait(helpers)
    launcher.run()
    result: dict[str, Any] = {
        "calls": launcher.calls,
        "pids": launcher.pids,
        "left": launcher.left,
        "mishaps": launcher.mishaps,
        # Looked at before anything else: nothing is left when join has raised.
        "alive": [pid for pid in launcher.pids if remains.runs(pid, launcher.started_at)],
    }
    if not launcher.left:
        launcher.forget()
        gc.collect()
        after = portrait(helpers)
        result["changes"] = {
            name: [before[name], after[name]] for name in before if before[name] != after[name]
        }
    # Whole or not at all: this process may be killed at any moment.
    part = Path(folder, "result.part")
    part.write_text(json.dumps(result, default=repr))
    part.rename(part.with_suffix(".json"))
    # The end of an interpreter gives signals their default actions.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    acts.note(fifo, "launcher", "finished")
