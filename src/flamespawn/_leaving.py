"""
What a process of ours does before it leaves: all that the end of an interpreter does for others.

Every rank imports this module: it imports as little as it can.
"""

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def exit_steps() -> "list[Callable[[], None]]":
    """What an interpreter does before it takes itself apart, and `multiprocessing`; last first."""
    # The interpreter's own streams hold what was printed before somebody has replaced them.
    streams = ("__stderr__", "__stdout__", "stderr", "stdout")
    return [
        _keep_interrupts_out,
        _write_out_files,
        *(lambda name=name: _flush(name) for name in streams),
        _run_handlers,
        _wait_for_threads,
        _end_multiprocessing,
    ]


def _end_multiprocessing() -> None:
    util = sys.modules.get("multiprocessing.util")
    # From 3.13 on this is an exit handler and nothing else.
    if util is not None and sys.version_info < (3, 13):
        util._exit_function()


def _wait_for_threads() -> None:
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()


def _run_handlers() -> None:
    import atexit  # built in

    atexit._run_exitfuncs()


def _flush(name: str) -> None:
    stream: Any = getattr(sys, name, None)
    if stream is getattr(sys, name.strip("_"), None) and name.startswith("_"):
        # It was its turn before, whatever came of that.
        return
    if hasattr(stream, "flush") and not getattr(stream, "closed", False):
        stream.flush()


def _keep_interrupts_out() -> None:
    """Let a Ctrl-C that comes too late to be reported print nothing either."""
    import _signal

    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)


def _write_out_files() -> None:
    """
    Write out the files that nobody has closed, as the end of an interpreter does in its way.

    Those that are written in Python, such as compressed ones, are closed, because some of them
    write an end; the others are flushed. As there, what fails is not told to anybody.
    """
    import _io  # built in

    plain = {_io.TextIOWrapper, _io.BufferedWriter, _io.BufferedRandom, _io.BufferedRWPair}
    kinds = plain | _subclasses(_io._IOBase)
    alone = len(sys._current_frames()) == 1
    standard = {id(getattr(sys, name, None)) for name in ("stdin", "stdout", "stderr")}
    files = [thing for thing in gc.get_objects() if type(thing) in kinds]
    # From the outside in: text may be written into what is compressed, and that into a buffer.
    files.sort(key=lambda file: (not isinstance(file, _io._TextIOBase), type(file) in plain))
    for file in files:
        try:
            if id(file) in standard or file.closed:
                continue
            if not alone and not _is_on_a_disk(file):
                # Another thread may be stuck with it for ever, as in a pipe that is full.
                continue
            if type(file) in plain:
                file.flush()
            else:
                file.close()
        except Exception:  # noqa: BLE001, S112 - see above
            continue


def _is_on_a_disk(file: "Any") -> bool:
    import _stat  # built in

    return _stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _subclasses(kind: type) -> "set[type]":
    """Return the classes below *kind* that are written in Python."""
    below: set[type] = set()
    direct: type
    for direct in type.__subclasses__(kind):
        if direct.__module__ != "_io":
            below.add(direct)
        below |= _subclasses(direct)
    return below
