"""What a new process sees of itself, when `multiprocessing` starts it and when flamespawn does."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import flamespawn

# Now and then all processes under Wine 8 stand still for a minute.
SECONDS = 100 if os.name == "nt" else 60

# Puts the tests' modules in the path of a launcher, whatever its options, at run time.
_HERE = os.path.dirname(__file__)
IMPORT = f"""import sys
if {_HERE!r} not in sys.path:
    sys.path.insert(0, {_HERE!r})
import jobs, probes, flamespawn
"""


def write_view(rank: int, path: str, probe: Callable[..., object], *args: object) -> None:
    view = json.dumps(probe(*args))
    with open(path, "w") as file:
        file.write(view)


def views(probe: Callable[..., object], *args: object) -> dict[str, Any]:
    """Return what `probe(*args)` returns in each kind of new process; None where it cannot run."""
    contexts = {
        "multiprocessing": multiprocessing.get_context("spawn"),
        "get_context": flamespawn.get_context(),
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, name) for name in (*contexts, "spawn")}
        # All at once, because it takes less time.
        processes = []
        for name, context in contexts.items():
            call = (0, paths[name], probe, *args)
            processes.append(context.Process(target=write_view, args=call))
            processes[-1].start()
        flamespawn.spawn(write_view, (paths["spawn"], probe, *args))
        for process in processes:
            process.join()
        return {name: read_view(path) for name, path in paths.items()}


def read_view(path: str) -> Any:
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        return json.load(file)


def print_views(probe: Callable[..., object], *args: object) -> None:
    print(json.dumps(views(probe, *args)))


def printed(launcher: subprocess.Popen[str], *, silent: bool = True) -> Any:
    """Return what a launcher has printed as JSON before it ended well."""
    out, err = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 0, err
    assert not (silent and err), err
    return json.loads(out)


def one_view(launcher: subprocess.Popen[str], *, silent: bool = True) -> Any:
    """Return what all processes of `print_views` have seen; it must be the same."""
    seen = printed(launcher, silent=silent)
    assert seen["spawn"] == seen["get_context"] == seen["multiprocessing"]
    return seen["spawn"]


def without_handles() -> None:
    """Make this launcher what the fixture `mechanism` makes of the tests' own."""
    from flamespawn import _context, _launch

    _context.features = _launch.features = lambda: 0


# ------------------------------------------------------------------------------------------ probes


def interpreter() -> dict[str, Any]:
    return {
        "flags": repr(sys.flags),
        "xoptions": sys._xoptions,
        "warnoptions": sys.warnoptions,
        "path": sys.path,
        "argv": arguments(),
        "encodings": [sys.getfilesystemencoding(), sys.stdout and sys.stdout.encoding],
        "executable": sys.executable,
        "prefix": sys.prefix,
    }


def surroundings() -> dict[str, Any]:
    umask = os.umask(0)
    os.umask(umask)
    return {
        "cwd": os.getcwd(),
        # Only ranks have a mark.
        "environ": {name: os.environ[name] for name in os.environ if name != "FLAMESPAWN_JOB"},
        "umask": umask,
        "stdin": [sys.stdin.read(), os.readlink(f"/proc/self/fd/{sys.stdin.fileno()}")],
        "niceness": os.nice(0),
        "group": os.getpgid(0) == os.getpgid(os.getppid()),
        "session": os.getsid(0) == os.getsid(os.getppid()),
    }


def signals() -> dict[str, list[int]]:
    """Return the numbers of the signals that are blocked and that are ignored."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":\t", 1) for line in file)
    masks = {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn")}
    return {
        name: [number for number in range(1, 65) if mask >> (number - 1) & 1]
        for name, mask in masks.items()
    }


def descriptors() -> dict[str, bool]:
    """Return what each descriptor above the standard ones is, and whether it is inheritable."""
    result = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                result[os.readlink(f"/proc/self/fd/{name}")] = os.get_inheritable(int(name))
        except OSError:  # the descriptor of the listing itself
            continue
    return result


def arguments() -> list[str]:
    return [repr(word) for word in sys.argv]


def strings_in_path() -> list[str]:
    return [entry for entry in sys.path if isinstance(entry, str)]


def who_am_i() -> dict[str, Any]:
    """Return what `multiprocessing` says about this process, whatever its way of being started."""
    me = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    assert parent is not None
    return {
        "name": me.name.rstrip("0123456789"),
        "daemon": me.daemon,
        "authkey": me.authkey.hex(),
        "pid": me.pid == os.getpid(),
        "identity": len(me._identity),
        "alive": me.is_alive(),
        "exitcode": me.exitcode,
        "parent": [parent.name, parent.pid == os.getppid(), parent.is_alive()],
        "children": multiprocessing.active_children(),
        "start_method": multiprocessing.get_start_method(),
        "inheriting": getattr(me, "_inheriting", False),
        "loader": type(multiprocessing.__spec__.loader).__name__,
    }


def names() -> list[Any]:
    me = multiprocessing.current_process()
    return [me.name, me.daemon, list(me._identity), me.pid]


def log() -> dict[str, Any]:
    logger = multiprocessing.get_logger()
    return {
        "level": [logger.level, logger.getEffectiveLevel()],
        "handlers": [type(handler).__name__ for handler in logger.handlers],
        "to_stderr": multiprocessing.util._log_to_stderr,
    }


def make_shared_memory(size: int) -> str:
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(create=True, size=size)
    memory.buf[:size] = bytes(range(size))
    memory.close()
    return memory.name


def attach_shared_memory(name: str) -> int:
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(name)
    memory.close()
    return memory.size


# ------------------------------------------------------------------------------------------ limits


def limit_descriptors() -> Callable[[], None]:
    """Let this process have few more descriptors than now; return what undoes it."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 9, limit[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def limit_processes() -> Callable[[], None]:
    """Let the user of this process have three more processes than now."""
    import resource
    from multiprocessing import forkserver

    limit = resource.getrlimit(resource.RLIMIT_NPROC)
    used = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                used += len(os.listdir(f"/proc/{name}/task"))
    resource.setrlimit(resource.RLIMIT_NPROC, (used + 3, limit[1]))
    server = forkserver._forkserver._forkserver_pid
    if server is not None:
        # It was there before.
        resource.prlimit(server, resource.RLIMIT_NPROC, (used + 3, limit[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_NPROC, limit)


def limit_control_group(path: str) -> Callable[[], None]:
    """Let the control group have three more processes than now."""

    def write(limit: object) -> None:
        with open(f"{path}/pids.max", "w") as file:
            file.write(str(limit))

    with open(f"{path}/pids.current") as file:
        write(int(file.read()) + 3)
    return lambda: write("max")
