"""
The first thing that runs in a fresh interpreter: become what the launcher wants, run, and leave.

The launcher has put all that is needed into one file in memory, which all processes of a launch
inherit: the pickles of what to run, the buffers that belong to them, and a header that describes
the rest. `flamespawn._payload` writes that file and `flamespawn._launch` the header.

Every rank imports this module, and its time counts once for each rank: it imports as little as it
can, and no part of `multiprocessing`, which costs as much as the interpreter itself. Not even
`__future__`, which is a file of its own: annotations are strings here.
"""

import gc
import os
import sys

from flamespawn import _late_multiprocessing, _rank
from flamespawn._leaving import exit_steps
from flamespawn._platform import here
from flamespawn._report_writer import ReportWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn


# More objects than any import makes, and a number that nobody else would choose.
_NO_COLLECTION = 1_999_999_973

# Above this size a pickle is read in place instead of being copied first.
_MAP_FROM = 1 << 18

_NOT_CALLED = "This happened before the function was called, when the rank was prepared."

# What this process was booted with, for processes that it starts itself.
boot_code: "dict[str, Any]" = {}

FULL_EXIT_VARIABLE = "FLAMESPAWN_FULL_EXIT"


class InheritedFd:
    """What a pickle says about a descriptor that the process has inherited."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def detach(self) -> int:
        """Return the descriptor, which is the caller's from now on."""
        return self._fd


def main(header: "dict[str, Any]") -> "NoReturn":
    """
    Do what the launcher wants of this process.

    Args:
        header: what `flamespawn._launch` has written.
    """
    # Now, because the function may leave no descriptor to import it with, or no path to it.
    from flamespawn._rank_native import leave

    boot_code.update({name: header.pop(name) for name in ("boot", "modules")})
    options = dict(word.split("=", 1) for word in sys.argv[2:])
    _start_guard(header, int(options["rank"]))
    _use_launchers_stderr(header["early_stderr"], int(options["rank"]))
    sys.path = header["sys_path"]
    header["fds"].extend(int(options[name]) for name in ("report", "sentinel") if name in options)
    job = _Process(header) if header["process"] else _Rank(header, options)
    # A Ctrl-C can come between any two of the lines below.
    steps = job.steps()
    code = 0
    try:
        while steps:
            try:
                while steps:
                    code = steps.pop()() or code
            except SystemExit as error:
                # Of a signal handler, while this process waits for a thread.
                code = job.exit(error) or code
            except BaseException as error:  # noqa: BLE001 - whoever waits for this is to know
                code = job.fail(error)
        if code == 0:
            job.succeed()
    except KeyboardInterrupt:
        # One more, while the first was being reported.
        code = _rank.INTERRUPTED
    if header["full_exit"] or os.environ.get(FULL_EXIT_VARIABLE, "0") not in {"", "0"}:
        sys.exit(code)
    leave(code)


def _start_guard(header: "dict[str, Any]", rank: int) -> None:
    """Let this process end when its launcher does."""
    if header["guard"] is None:
        return
    from flamespawn._rank_native import guard

    *_, launcher, board, _ = header["guard"]
    is_private = guard(rank, *header["guard"])
    # The pipe is of use to others, too.
    for fd in (board, launcher) if is_private else (board,):
        if fd >= 0:
            os.close(fd)
            header["fds"].remove(fd)


def _use_launchers_stderr(early: "tuple[int, int, int, int] | None", rank: int) -> None:
    """Hand on what was written on the standard error so far; see `flamespawn._early_stderr`."""
    if early is None:
        return
    launchers, device, inode, size = early
    status = os.fstat(2)
    if (status.st_dev, status.st_ino) == (device, inode):
        start = rank * size
        length = os.lseek(2, 0, os.SEEK_CUR) - start
        if length > 0:
            os.write(launchers, os.pread(2, length, start))
            # So that the launcher does not do the same.
            os.pwrite(2, bytes(length), start)
        os.dup2(launchers, 2)
    os.close(launchers)


# ------------------------------------------------------------------------------------ what to run


class _Rank:
    """A function to be run by a rank, and its report."""

    def __init__(self, header: "dict[str, Any]", options: "dict[str, str]") -> None:
        self._header = header
        self._rank = int(options["rank"])
        self._pid = os.getpid()
        self._report = ReportWriter(here.report_fd(int(options["report"])), self._rank)
        self._interrupts = _Interrupts()

    def run(self) -> int:
        """Return the exit code."""
        try:
            self._interrupts.keep()
            fn, args = _prepared(self._header, self._rank)
            self._interrupts.let_go()
        except BaseException as error:  # noqa: BLE001 - the launcher is to know all of them
            # What was refused says itself when that was.
            if not isinstance(error, KeyboardInterrupt) and error is not _Preparation.refusal:
                error.add_note(_NOT_CALLED)
            return self.fail(error)
        code = _rank.call(fn, self._rank, args, self._report)
        if code == 0 and self._is_rank():
            _rank.tell(self._report.returned)
        return code

    def fail(self, error: BaseException) -> int:
        """Report what has gone wrong before or after the function; return the exit code."""
        _shorten_traceback(error)
        return _rank.fail(self._report, error) if self._is_rank() else _rank.show(error)

    def exit(self, error: SystemExit) -> int:
        """Report an exit after the function; return the exit code."""
        return _rank.exit(error, self._report if self._is_rank() else None)

    def steps(self) -> "list[Callable[[], int | None]]":
        """Return what is to be done, last first."""
        last, *others = exit_steps()
        return [last, self._interrupts.let_go, *others, self._interrupts.keep, self.run]

    def succeed(self) -> None:
        """Report that nothing is left to be done."""
        if self._is_rank():
            from flamespawn._rank_native import ended_well

            ended_well()
            _rank.tell(self._report.done)

    def _is_rank(self) -> bool:
        """Return whether this is the rank, and not a process that the function has forked."""
        return os.getpid() == self._pid


class _Interrupts:
    """Keeps for later what the interpreter would print and forget: a Ctrl-C during a callback."""

    def __init__(self) -> None:
        self._one_came = False
        self._hook = sys.unraisablehook

    def keep(self) -> None:
        if sys.unraisablehook != self._note:
            self._hook = sys.unraisablehook
            sys.unraisablehook = self._note

    def let_go(self) -> None:
        """Raise KeyboardInterrupt if one has come."""
        if sys.unraisablehook == self._note:
            sys.unraisablehook = self._hook
        if self._one_came:
            self._one_came = False
            raise KeyboardInterrupt

    def _note(self, unraisable: "Any") -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._one_came = True
        else:
            self._hook(unraisable)


class _Process:
    """A process object of `multiprocessing` to be run. It reports nothing."""

    def __init__(self, header: "dict[str, Any]") -> None:
        self._header = header

    def run(self) -> int:
        """Return the exit code."""
        return here.exit_code(_prepared(self._header, 0)._bootstrap(self._header["launcher_fd"]))

    def fail(self, error: BaseException) -> int:
        """Print what has gone wrong; return the exit code."""
        return self.exit(error) if isinstance(error, SystemExit) else _rank.show(error)

    def exit(self, error: SystemExit) -> int:
        """Return the exit code of an exit outside of the function."""
        return _rank.exit(error, None)

    def steps(self) -> "list[Callable[[], int | None]]":
        """Return what is to be done, last first."""
        return [*exit_steps(), self.run]

    def succeed(self) -> None:
        """Do nothing: the exit code tells."""


def _shorten_traceback(error: BaseException) -> None:
    """Leave out of a traceback how the rank came to what has raised."""
    if error is _Preparation.refusal:
        # Its text says where.
        error.__traceback__ = None
    while (
        error.__traceback__ is not None
        and error.__traceback__.tb_frame.f_globals.get("__package__") == __package__
    ):
        error.__traceback__ = error.__traceback__.tb_next


# ------------------------------------------------------------------------------------- preparation


class _Preparation:
    """Whether this process is still being prepared, and what was refused meanwhile."""

    running = False
    refusal: "BaseException | None" = None


def _prepared(header: "dict[str, Any]", rank: int) -> "Any":
    """Make this process what the launcher is, and return what it is to run."""
    for fd in header["fds"]:
        here.keep_from_children(fd)
    # Imports make hundreds of thousands of objects and next to no garbage; looking for it over and
    # over takes a sixth of the time that importing torch does.
    thresholds = gc.get_threshold()
    gc.set_threshold(_NO_COLLECTION, *thresholds[1:])
    _Preparation.running = True
    try:
        # Until here an interrupt would have met an interpreter that prints a traceback.
        here.let_interrupts_in()
        _use_no_input()
        if "pickled" in header:
            header |= _unpickle(header.pop("pickled"))
        sys.argv = header["sys_argv"]
        _late_multiprocessing.arrange(header, rank)
        _import_main(header)
        return _load(header, rank)
    finally:
        _Preparation.running = False
        # Unless what was imported has chosen its own.
        if gc.get_threshold()[0] == _NO_COLLECTION:
            gc.set_threshold(*thresholds)
        _late_multiprocessing.end_of_preparation()


def is_preparing() -> bool:
    """Return whether this process is still importing what it needs to run."""
    return _Preparation.running


def refuse_to_start() -> None:
    """
    Raise if this process is still being prepared, because it would start processes without end.

    Raises:
        RuntimeError: it names the line of the module that is being imported.
    """
    if not _Preparation.running:
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "a module"
    _Preparation.refusal = RuntimeError(
        f"{where} starts processes while a new process imports this file: "
        'put it under `if __name__ == "__main__":`'
    )
    raise _Preparation.refusal


def _use_no_input() -> None:
    """Read nothing from the launcher's standard input, as `multiprocessing` has it."""
    try:
        if sys.stdin is not None:
            sys.stdin.close()
        sys.stdin = open(os.open(os.devnull, os.O_RDONLY), encoding="utf-8", closefd=False)  # noqa: SIM115
    except (OSError, ValueError):
        # There is no such device, or the stream is not a real one.
        return


def _import_main(header: "dict[str, Any]") -> None:
    """Run the launcher's main module again, as `__mp_main__`."""
    name: str | None = header.get("init_main_from_name")
    path: str | None = header.get("init_main_from_path")
    if name is not None:
        # What a package or an archive has in `__main__` runs whatever its name is.
        if name == "__main__" or name.endswith(".__main__"):
            return
        import runpy

        content = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
    elif path is not None:
        # IPython's own script has no guard.
        if os.path.splitext(os.path.basename(path))[0] == "ipython":
            return
        if header["main_code"] is not None:
            _run_script(path, header["main_code"])
            return
        import runpy

        content = runpy.run_path(path, run_name="__mp_main__")
    else:
        return
    module = type(sys)("__mp_main__")
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _run_script(path: str, code: "Any") -> None:
    """Do for a script what `runpy.run_path` does, without what that imports and compiles."""
    from _frozen_importlib_external import SourceFileLoader

    module = type(sys)("__mp_main__")
    module.__file__ = path
    module.__dict__.update(
        __cached__=None, __loader__=SourceFileLoader("__mp_main__", path), __package__=""
    )
    # Where unpickling and the module itself look for it.
    before = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    script = sys.argv[:1]
    sys.argv[:1] = [path]
    try:
        exec(code, module.__dict__)  # noqa: S102 - the user's own script
    except BaseException:
        sys.modules["__main__"] = before
        raise
    finally:
        sys.argv[:1] = script


# ----------------------------------------------------------------------------------------- payload


def _import_pickle() -> "Any":
    """
    Import `_pickle`: `pickle` imports the regular expressions, for its own command line.

    All that `_pickle` wants of `functools` is what that has from `_functools`; the rest of it, and
    the collections that it imports, would take a quarter of the time that an interpreter needs to
    start. Whoever needs them imports them later.
    """
    if "functools" not in sys.modules:
        import _functools  # built in

        stand_in: Any = type(sys)("functools")
        stand_in.partial = _functools.partial
        sys.modules["functools"] = stand_in
        try:
            import _pickle
        except AttributeError:
            # This version wants more.
            del sys.modules["functools"]
        else:
            del sys.modules["functools"]
            return _pickle
    import _pickle

    return _pickle


def _unpickle(data: object, buffers: object = ()) -> "Any":
    return _import_pickle().loads(data, buffers=buffers)


def _load(header: "dict[str, Any]", rank: int) -> "Any":
    """Unpickle what to run; large buffers are private, writable views of the shared file."""
    fd: int = header["fd"]
    parts: list[tuple[int, int, list[tuple[int, int]]]] = header["parts"]
    start, size, buffers = parts[rank] if len(parts) > 1 else parts[0]
    if not buffers and size < _MAP_FROM:
        data = here.read_at(fd, size, start)
        here.close(fd)
        return _unpickle(data)
    with memoryview(here.map_privately(fd, header["size"])) as view:
        here.close(fd)
        return _unpickle(
            view[start : start + size], [view[first : first + length] for first, length in buffers]
        )
