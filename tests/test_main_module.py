"""The launcher's main module in a rank, and modules that start processes when they are imported."""

from __future__ import annotations

import json
import subprocess
import sys
import zipapp
from collections.abc import Callable
from pathlib import Path

import pytest

import probes

RunCommand = Callable[..., "subprocess.Popen[str]"]

# A module that defines what ranks are to run. As a main module it also runs it.
WORK = f"""{probes.IMPORT}
class Shape:
    def __init__(self, size):
        self.size = size
    def __reduce__(self):
        return Shape, (self.size,)

class Kind(type):
    pass

class Made(metaclass=Kind):
    pass

def double(number):
    return 2 * number

def look(shape, function, kind):
    main = sys.modules["__main__"]
    return {{
        "same": main is sys.modules.get("__mp_main__"),
        "mine": main.look.__code__ is look.__code__,
        "name": [__name__, look.__module__, main.__name__],
        "file": [__file__, main.__file__],
        "package": [__package__, main.__package__, main.__doc__],
        "spec": main.__spec__ and main.__spec__.name,
        "types": [type(shape) is Shape, shape.size, kind is Made, function(21)],
        "argv": sys.argv,
    }}
"""
MAIN = """
if __name__ == "__main__":
    probes.print_views(look, Shape(3), double, Made)
"""
FROM_WORK = f"""{probes.IMPORT}
from work import Made, Shape, double, look_from_outside
probes.print_views(look_from_outside, Shape(3), double, Made)
"""
# For a main module that is not imported again.
OUTSIDE = """
def look_from_outside(shape, function, kind):
    main = sys.modules["__main__"]
    return {
        "imported": hasattr(main, "Shape"),
        "name": main.__name__,
        "types": [type(shape) is Shape, shape.size, kind is Made, function(21)],
        "path": sys.path,
        "argv": sys.argv,
    }
"""
TYPES = [True, 3, True, 42]


# ------------------------------------------------------------------------------- the main module


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        ("script.py", True),
        ("my script.py", False),
        ("\u00e4\u4e16\u754c.py", True),
        ("a.b.pyw", False),
        ("tool", True),
        ("tool.txt", False),
    ],
)
def test_a_script_is_the_main_module(
    name: str, relative: bool, tmp_path: Path, run_command: RunCommand
) -> None:
    """A script of any name is __main__ and __mp_main__ in a rank; its classes and functions are."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    script = folder / name
    script.write_text(WORK + MAIN)
    path = Path(folder.name, "..", folder.name, name) if relative else script

    seen = probes.one_view(run_command(sys.executable, path, "word", cwd=tmp_path))

    assert seen.pop("argv") == [str(path), "word"]
    assert seen == {
        "same": True,
        "mine": True,
        "name": ["__mp_main__", "__mp_main__", "__mp_main__"],
        "file": [str(script), str(script)],
        "package": ["", "", None],
        "spec": None,
        "types": TYPES,
    }


@pytest.mark.parametrize("name", ["module", "package.module"])
def test_a_module_is_the_main_module(name: str, tmp_path: Path, run_command: RunCommand) -> None:
    """With -m the module is __main__ and __mp_main__ in a rank."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    path = tmp_path / f"{name.replace('.', '/')}.py"
    path.write_text(WORK + MAIN)

    seen = probes.one_view(run_command(sys.executable, "-m", name, cwd=tmp_path))

    assert seen["same"]
    assert seen["name"] == ["__mp_main__", "__mp_main__", "__mp_main__"]
    assert seen["file"] == [str(path), str(path)]
    assert seen["types"] == TYPES


@pytest.mark.parametrize("kind", ["package", "folder", "archive"])
def test_what_has_a_main_of_its_own(kind: str, tmp_path: Path, run_command: RunCommand) -> None:
    """__main__.py of a package, a folder or an archive is not run again; its modules are found."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "__main__.py").write_text(
        FROM_WORK.replace("from work", f"from {'app.' * (kind == 'package')}work")
    )
    (folder / "work.py").write_text(WORK + OUTSIDE)
    command = [folder]
    if kind == "archive":
        zipapp.create_archive(folder, tmp_path / "app.pyz")
        command = [tmp_path / "app.pyz"]
    elif kind == "package":
        (folder / "__init__.py").touch()
        command = ["-m", "app"]

    seen = probes.one_view(run_command(sys.executable, *command, cwd=tmp_path))

    assert seen["imported"] is False
    assert seen["types"] == TYPES


SESSIONS = {
    "-c": lambda code: ([sys.executable, "-c", code], ""),
    "stdin": lambda code: ([sys.executable], code),
    "dash": lambda code: ([sys.executable, "-", "word"], code),
    "interactive": lambda code: ([sys.executable, "-i", "-q"], code),
}


def run_session(run_command: RunCommand, kind: str, code: str, folder: Path) -> tuple[str, str]:
    """Run code that is in no file; return what it has printed."""
    command, text = SESSIONS[kind](code)
    launcher = run_command(*command, cwd=folder)
    out, err = launcher.communicate(text, timeout=probes.SECONDS)
    assert launcher.returncode == 0, err
    return out, err


@pytest.mark.parametrize("kind", SESSIONS)
def test_a_session_runs_what_is_in_modules(
    kind: str, tmp_path: Path, run_command: RunCommand
) -> None:
    """Code that is in no file can run functions of modules, whatever words are in the arguments."""
    (tmp_path / "work.py").write_text(WORK + OUTSIDE)
    code = """\
import os, tempfile, flamespawn, probes, work
fd, name = tempfile.mkstemp()
os.close(fd)
arguments = (work.Shape(3), work.double, work.Made)
flamespawn.spawn(probes.write_view, (name, work.look_from_outside, *arguments))
print(open(name).read())
flamespawn.spawn(probes.write_view, (name, str, "app/__main__.py"))
print(open(name).read())
os.remove(name)
"""
    out, _ = run_session(run_command, kind, code, tmp_path)

    first, second = map(json.loads, out.splitlines())
    assert first["types"] == TYPES
    assert first["imported"] is False
    assert second == "app/__main__.py"


REFUSED = """\
import functools, flamespawn, jobs, multiprocessing
class Thing: pass

def fn(rank): print('started')

try: flamespawn.spawn(fn)
except TypeError as error: print(error)

try: flamespawn.spawn(jobs.nothing, ([Thing()],), 2)
except TypeError as error: print(error)

try: flamespawn.spawn(functools.partial(jobs.nothing, fn))
except TypeError as error: print(error)

print(multiprocessing.active_children())
"""


def check_refusal(out: str) -> None:
    first, *others, children = out.splitlines()
    assert first.startswith("fn (<function fn at ")
    assert all(line.startswith("something in fn or args") for line in others)
    for line in (first, *others):
        assert "is defined in a main module that ranks cannot import" in line
    assert (len(others), children) == (2, "[]")


@pytest.mark.parametrize("kind", SESSIONS)
def test_a_session_is_told_what_cannot_work(
    kind: str, tmp_path: Path, run_command: RunCommand
) -> None:
    """What is defined in a main module that is in no file is refused before anything starts."""
    out, _ = run_session(run_command, kind, REFUSED, tmp_path)

    check_refusal(out)


@pytest.mark.parametrize("kind", ["package", "folder"])
def test_a_main_of_its_own_is_told_what_cannot_work(
    kind: str, tmp_path: Path, run_command: RunCommand
) -> None:
    """The same holds for what is defined in __main__.py, which no rank runs again."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "__main__.py").write_text(REFUSED)

    launcher = run_command(sys.executable, *(["-m"] * (kind == "package")), "app", cwd=tmp_path)
    out, err = launcher.communicate(timeout=probes.SECONDS)

    assert err == ""
    check_refusal(out)


SCRIPT_THAT_GOES = f"""{probes.IMPORT}
import os
def fn(rank):
    pass
if __name__ == "__main__":
    os.remove(sys.argv[0])
    flamespawn.spawn(jobs.nothing, nprocs=2)
    try:
        flamespawn.spawn(fn)
    except TypeError as error:
        print(str(error).startswith("fn (<function fn at "))
"""


def test_a_script_that_has_been_deleted(run_launcher: RunCommand) -> None:
    """Functions of modules still run; those of the script are refused."""
    launcher = run_launcher(SCRIPT_THAT_GOES)

    assert launcher.communicate(timeout=probes.SECONDS) == ("True\n", "")


FROZEN = f"""#!{sys.executable}
{probes.IMPORT}
import multiprocessing.spawn
sys.frozen = True
sys.executable = {{path!r}}
multiprocessing.set_executable(sys.executable)

def look():
    return [sys.frozen, sys.argv, __name__, "--multiprocessing-fork" in sys.orig_argv]

if __name__ == "__main__":
    # What a maker of such programs adds: multiprocessing starts its resource tracker so.
    if "-c" in sys.argv:
        sys.exit(exec(sys.argv[-1]))
    multiprocessing.spawn.freeze_support()
    assert sys.argv[1:] == ["word"]
    flamespawn.install()
    print(type(flamespawn.get_context().Process(target=print)).__module__)
    probes.print_views(look)
"""


@pytest.mark.posix("scripts as programs")
def test_a_frozen_program(tmp_path: Path, run_command: RunCommand) -> None:
    """A program with its interpreter built in starts itself, as multiprocessing has it."""
    program = tmp_path / "program"
    program.write_text(FROZEN.format(path=str(program)))
    program.chmod(0o755)
    launcher = run_command(program, "word")
    assert launcher.stdout is not None

    assert launcher.stdout.readline() == "multiprocessing.context\n"
    seen = probes.one_view(launcher)

    assert seen == [True, [str(program), "word"], "__main__", True]


# ------------------------------------------------------------------------- starting while importing


UNGUARDED = f"""{probes.IMPORT}
import os
with open(sys.argv[1], "a") as log:
    print(__name__, file=log)

def fn(*args):
    pass

{{call}}
"""
CALLS = {
    "spawn": "flamespawn.spawn(fn, nprocs=2)",
    "start_processes": 'flamespawn.start_processes(fn, nprocs=2, start_method="spawn")',
    "fork": 'flamespawn.spawn(fn, nprocs=2) or flamespawn.start_processes(fn, start_method="fork")',
    "in a function": "def main():\n    flamespawn.spawn(fn, nprocs=2)\n\nmain()",
}
NOTE = "How each rank ended:"
SENTENCE = (
    "{file}:{line} starts processes while a new process imports this file: "
    'put it under `if __name__ == "__main__":`'
)


@pytest.mark.parametrize(
    ("call", "name"), [*((call, "script.py") for call in CALLS), ("spawn", "tool")]
)
def test_a_script_without_a_guard(
    call: str, name: str, tmp_path: Path, run_command: RunCommand
) -> None:
    """A script that spawns while ranks import it is told so in one sentence; nothing multiplies."""
    script = tmp_path / name
    script.write_text(UNGUARDED.format(call=CALLS[call]))
    log = tmp_path / "log"

    launcher = run_command(sys.executable, script, log)
    out, err = launcher.communicate(timeout=probes.SECONDS)

    assert (launcher.returncode, out) == (1, "")
    line = len(script.read_text().splitlines())
    text = err.split("with the following error:\n")[1].splitlines()
    assert text[:3] == [f"RuntimeError: {SENTENCE.format(file=script, line=line)}", "", NOTE]
    # Once more as the cause.
    assert err.count("put it under") == 2
    # Of the ranks, the second may have been stopped before it had got so far.
    assert log.read_text().splitlines() in (["__main__"] + ["__mp_main__"] * n for n in (1, 2))


PROCESS_CALL = """
process = flamespawn.get_context().Process(target=fn)
process.start()
process.join()
print(process.exitcode)
"""


def test_a_process_object_without_a_guard(tmp_path: Path, run_command: RunCommand) -> None:
    """The same sentence is on stderr when a process object is started at import."""
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED.format(call=PROCESS_CALL))
    log = tmp_path / "log"

    launcher = run_command(sys.executable, script, log)
    out, err = launcher.communicate(timeout=probes.SECONDS)

    line = script.read_text().splitlines().index("process.start()") + 1
    assert out == "1\n"
    assert err.splitlines()[-1] == "RuntimeError: " + SENTENCE.format(file=script, line=line)
    assert err.count("put it under") == 1
    assert log.read_text().splitlines() == ["__main__", "__mp_main__"]


EAGER = """
import os, flamespawn, jobs

def fn(rank, *args):
    pass

if "EAGER" in os.environ:
    {call}
"""
IMPORTS_EAGER = f"""{probes.IMPORT}
import os
if __name__ == "__main__":
    import eager
    os.environ["EAGER"] = "1"
    try:
        flamespawn.spawn(eager.fn if sys.argv[1] == "fn" else jobs.nothing, (eager.fn,), 2)
    except flamespawn.ProcessRaisedException as error:
        print(error.error_index, error.error_message)
"""


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("flamespawn.spawn(jobs.nothing)", "fn"),
        ("flamespawn.spawn(jobs.nothing)", "args"),
        ('flamespawn.start_processes(jobs.nothing, start_method="fork")', "args"),
        ("flamespawn.get_context().Process(target=print).start()", "args"),
    ],
)
@pytest.mark.posix("fork")
def test_a_module_that_spawns_when_it_is_unpickled(
    call: str, where: str, tmp_path: Path, run_launcher: RunCommand
) -> None:
    """A module that starts processes when the arguments' pickle imports it is named too."""
    module = tmp_path / "eager.py"
    module.write_text(EAGER.format(call=call))

    launcher = run_launcher(IMPORTS_EAGER, where)
    out, err = launcher.communicate(timeout=probes.SECONDS)

    assert (launcher.returncode, err) == (0, "")
    assert out[0] in "01"
    assert out[2:] == SENTENCE.format(file=module, line=8) + "\n"


def test_fn_may_start_processes(run_launcher: RunCommand) -> None:
    """What is refused is the import only: fn itself starts ranks as it likes."""
    nested = f"""{probes.IMPORT}
import functools
def inner():
    return [__name__, sys.argv[1:]]
if __name__ == "__main__":
    probes.print_views(probes.views, inner)
"""
    seen = probes.printed(run_launcher(nested, "word"))

    assert all(
        view == ["__mp_main__", ["word"]] for inner in seen.values() for view in inner.values()
    )
