"""A real shell with job control on a real terminal, as a user has it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

SECONDS = 60
CTRL_C = b"\x03"
CTRL_Z = b"\x1a"
# Not how the terminal echoes the command that sets it.
PROMPT = "<prompt>"


class Shell:
    """
    An interactive shell that leads a session on a terminal of its own.

    Attributes:
        seen: all that the terminal has shown so far.
    """

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.seen = ""
        self._looked_at = 0

    def type(self, line: str) -> None:
        os.write(self._master, line.encode() + b"\n")

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until the terminal shows *pattern* after what was expected before."""
        deadline = time.monotonic() + SECONDS
        while True:
            found = re.compile(pattern).search(self.seen, self._looked_at)
            if found is not None:
                self._looked_at = found.end()
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._master], [], [], left)[0]:
                msg = f"{pattern!r} was not shown:\n{self.seen[self._looked_at :]}"
                raise AssertionError(msg)
            self.seen += os.read(self._master, 1 << 16).decode(errors="replace")

    def expect_prompt(self) -> str:
        """Wait for the prompt; return what was shown between the last thing and that."""
        start = self._looked_at
        end = self.expect(PROMPT).start()
        return self.seen[start:end]

    def run(self, line: str) -> str:
        """Run a command that ends by itself; return what it has printed."""
        self.type(line)
        self.expect("\r\n")
        return self.expect_prompt().strip()


def _session(sid: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == sid:
                yield process
        except ProcessLookupError:
            continue


@contextmanager
def shell() -> Iterator[Shell]:
    """Start a shell; it and all of its session are killed in the end."""
    master, slave = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TMPDIR": os.environ["TMPDIR"],
        "HISTFILE": "",
    }
    process = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "--noediting", "-i"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - there are no other threads that hold locks
    )
    os.close(slave)
    try:
        user = Shell(master, process)
        user.type("PS1='<prom''pt>'")
        user.expect_prompt()
        yield user
    finally:
        for other in _session(process.pid):
            if other.pid != process.pid:
                other.kill()
        process.kill()
        process.wait()
        os.close(master)
