"""
What makes a rank write its stacks into its report pipe: a crash, and the launcher's question.

Facts about faulthandler, which is built in:

- Its handlers are C. They need no GIL and allocate nothing, so that they run whatever the main
  thread does. What they write is ASCII, in many small pieces.
- A thread that the handler does not run in may be changing its stack meanwhile; to follow it then
  can end in a crash. With the GIL it cannot.
- A handler of `register(chain=True)` writes, and then calls the handler that was there before. The
  one of Python sets a flag; its function runs when the main thread is back in the interpreter.
- That handler makes interrupted system calls start again, so that the main thread would not be
  back before whatever it waits for has come. `siginterrupt` changes that, until the handler has
  run and is put into place again.

Every rank imports this module: it imports as little as it can.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class _Armed:
    """What has been set up in this process, or in the one that it was forked from."""

    signal = 0
    # Where crashes are written to, if that was not the user's own choice, and what that is.
    crash_fd = -1
    crash_pipe: "os.stat_result | None" = None
    is_hooked = False


def arm(fd: int, answer: "Callable[[], None]") -> int:
    """
    Let this process write its stacks when it crashes, and when it gets a certain signal.

    At the signal the thread that it meets, which is the main one unless that blocks it, writes its
    own stack at once. When the main thread is back in the interpreter, it writes those of all.

    A faulthandler that somebody else has enabled stays as it is, and so does a handler of that
    signal.

    Args:
        fd: where to write. It stays open for as long as this process lives.
        answer: is called after that; what it raises is raised in the middle of fn.

    Returns:
        The number of the signal; 0 where there is none.
    """
    import _signal  # built in; `signal` makes enumerations of it first
    import faulthandler

    if not faulthandler.is_enabled() or _Armed.crash_fd >= 0:
        faulthandler.enable(fd)
        _Armed.crash_fd = fd
        _Armed.crash_pipe = os.fstat(fd)
    if not _Armed.is_hooked and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_disarm_in_fork)
        _Armed.is_hooked = True
    # The last but one: valgrind keeps the last for itself.
    number = getattr(_signal, "SIGRTMAX", 1) - 1 or int(getattr(_signal, "SIGINFO", 0))
    if not number or _signal.getsignal(number) != _signal.SIG_DFL:
        return 0

    def on_question(*_: object) -> None:
        if not _Armed.signal:
            return
        _signal.siginterrupt(number, True)
        if len(sys._current_frames()) > 1:
            faulthandler.dump_traceback(fd, all_threads=True)
        answer()

    _signal.signal(number, on_question)
    faulthandler.register(number, fd, all_threads=False, chain=True)
    _signal.siginterrupt(number, True)
    _Armed.signal = number
    return number


def disarm() -> None:
    """Write no stacks for a signal any more: what is written next must stay in one piece."""
    if _Armed.signal:
        import faulthandler

        number, _Armed.signal = _Armed.signal, 0
        # The signal has Python's handler again, which does nothing any more.
        faulthandler.unregister(number)


def _disarm_in_fork() -> None:
    """Let a process that a rank has forked write nothing: it is not the rank."""
    if _Armed.signal:
        import _signal

        number = _Armed.signal
        disarm()
        _signal.signal(number, _signal.SIG_DFL)
    if _Armed.crash_fd >= 0 and _is_still(_Armed.crash_fd, _Armed.crash_pipe):
        # Not disable(): the user may have enabled it for something else since then.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _Armed.crash_fd, inheritable=False)
        os.close(nowhere)


def _is_still(fd: int, pipe: "os.stat_result | None") -> bool:
    """Return whether the function has not opened something of its own in the pipe's place."""
    try:
        return pipe is not None and os.path.samestat(os.fstat(fd), pipe)
    except OSError:
        # It has closed it.
        return False
