"""
What the ranks of a job do, each act announced just before it is done.

Ranks import this: it imports little.
"""

from __future__ import annotations

import os
import signal
import sys
import time

# Nobody waits that long; whatever is forgotten goes away after it.
LIFE = 120
CHILD = "child"

_HIGHEST_FD = 4096


def note(fifo: str, who: object, word: str, *details: object) -> None:
    """
    Tell the driver what is about to happen, and when.

    A line is shorter than PIPE_BUF, so that it arrives whole. Opened each time, because acts close
    descriptors.
    """
    line = " ".join(map(str, (time.monotonic_ns(), os.getpid(), who, word, *details)))
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        # The driver is gone, and nobody wants to know.
        os._exit(0)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


class Victim(Exception):
    """What a handler of SIGTERM raises."""


def nothing(rank: int) -> None:
    pass


def run(rank: int, fifo: str, start_method: str, plans: list[dict]) -> None:
    """Be a rank."""
    plan = plans[rank]
    note(fifo, rank, "start")
    _at_exit(start_method, lambda: note(fifo, rank, "left"))
    if plan["at_exit"]:
        seconds = LIFE if plan["at_exit"] == "hang" else 0.05
        _at_exit(start_method, lambda: _sleep(seconds))
    for act in plan["prelude"]:
        note(fifo, rank, "act", act)
        _PRELUDES[act](fifo, rank)
    time.sleep(plan["delay"])
    note(fifo, rank, "final", plan["final"])
    _FINALS[plan["final"]](plan["argument"])


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(end - time.monotonic())


def _at_exit(start_method: str, function) -> None:
    """Have a function called at the exit; the one that was registered last is called first."""
    if start_method == "spawn":
        import atexit

        atexit.register(function)
    else:
        from multiprocessing import util

        util.Finalize(None, function, exitpriority=1)


# -------------------------------------------------------------------------------------- preludes


def _ignore_sigterm(fifo: str, rank: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _raise_on_sigterm(fifo: str, rank: int) -> None:
    def raise_victim(signum: int, frame: object) -> None:
        raise Victim

    signal.signal(signal.SIGTERM, raise_victim)


def _block_sigterm(fifo: str, rank: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _be_child(fifo: str, rank: int, kind: str) -> None:
    note(fifo, rank, CHILD, kind)
    _sleep(LIFE)


def _subprocess(fifo: str, rank: int) -> None:
    import subprocess

    child = subprocess.Popen(["/bin/sleep", str(LIFE)], close_fds=False)
    note(fifo, rank, CHILD, "subprocess", child.pid)
    # Its end is nobody's business here.
    child.returncode = 0


def _fork(fifo: str, rank: int) -> None:
    if os.fork() == 0:
        try:
            _be_child(fifo, rank, "fork")
        finally:
            os._exit(0)


def _daemonise(fifo: str, rank: int) -> None:
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            try:
                _be_child(fifo, rank, "daemonise")
            finally:
                os._exit(0)
        os._exit(0)
    os.waitpid(middle, 0)


def _mp_daemon(fifo: str, rank: int) -> None:
    """Start a daemonic child, which multiprocessing ends when the rank ends well."""
    import multiprocessing

    args = (fifo, rank, "mp_daemon")
    multiprocessing.get_context("fork").Process(target=_be_child, args=args, daemon=True).start()


def _mp_child(fifo: str, rank: int) -> None:
    """Start a short child, for which multiprocessing waits when the rank ends well."""
    import multiprocessing

    multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.05,)).start()


def _thread(fifo: str, rank: int) -> None:
    import threading

    threading.Thread(target=_sleep, args=(LIFE,), daemon=True).start()


def _close_fds(fifo: str, rank: int) -> None:
    os.closerange(3, _HIGHEST_FD)


def _report_fd() -> int:
    frame = sys._getframe()
    while frame is not None:
        report = frame.f_locals.get("report")
        if hasattr(report, "_fd"):
            return report._fd
        frame = frame.f_back
    raise AssertionError("no report pipe")


def _write(data: bytes) -> None:
    fd = _report_fd()
    try:
        os.write(fd, data)
    except OSError:
        # Closed by an act before this one.
        return


def _rubbish(fifo: str, rank: int) -> None:
    _write(b"rubbish" * (1 + rank * 100))


def _truncated(fifo: str, rank: int) -> None:
    from flamespawn import _frames

    header = _frames.pack_header(_frames.FAILED, rank, os.getpid(), time.monotonic_ns(), 5000)
    _write(header[:20] if rank % 2 else header + b"\1" * 100)


_PRELUDES = {
    "ignore_sigterm": _ignore_sigterm,
    "raise_on_sigterm": _raise_on_sigterm,
    "block_sigterm": _block_sigterm,
    "subprocess": _subprocess,
    "fork": _fork,
    "daemonise": _daemonise,
    "mp_daemon": _mp_daemon,
    "mp_child": _mp_child,
    "thread": _thread,
    "close_fds": _close_fds,
    "rubbish": _rubbish,
    "truncated": _truncated,
}


# ---------------------------------------------------------------------------------------- finals


def _raise(size: int) -> None:
    raise ValueError("x" * max(size, 10))


def _signal_self(signum: int) -> None:
    os.kill(os.getpid(), signum)
    _sleep(LIFE)


def _segfault(argument: int) -> None:
    import faulthandler

    faulthandler.disable()
    faulthandler._sigsegv()


def _abort(argument: int) -> None:
    import faulthandler

    faulthandler.disable()
    os.abort()


_FINALS = {
    "return": lambda argument: None,
    "exit_0": lambda argument: sys.exit(),
    "raise": _raise,
    "raise_huge": _raise,
    "exit": lambda argument: sys.exit(argument),
    "os_exit": lambda argument: os._exit(argument & 255),
    "os_exit_0": lambda argument: os._exit(0),
    "segfault": _segfault,
    "abort": _abort,
    "sigkill": lambda argument: _signal_self(signal.SIGKILL),
    "sigterm": lambda argument: _signal_self(signal.SIGTERM),
    "stop": lambda argument: _signal_self(signal.SIGSTOP),
    "hang": lambda argument: _sleep(LIFE),
}
