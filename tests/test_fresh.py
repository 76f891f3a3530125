"""A rank of `spawn` is like its launcher, to the same degree as with `multiprocessing`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import conftest
import flamespawn
import jobs
import probes

RunCommand = Callable[..., "subprocess.Popen[str]"]


def launcher_of(probe: str, setup: str = "") -> str:
    """Return the source of a launcher that prints the views of a probe."""
    body = textwrap.indent(f"{setup}\nprobes.print_views(probes.{probe})", "    ")
    return f'{probes.IMPORT}if __name__ == "__main__":\n{body}\n'


# --------------------------------------------------------------------------------- the interpreter


OPTIONS = [
    "",
    "-O -W error::DeprecationWarning -X utf8 -X dev -B -s -E",
    "-OO -I -bb -W error -X faulthandler",
    "-P -q -b -W ignore -W once::UserWarning -X frozen_modules=off",
    "-s -X utf8=0",
]


@pytest.mark.parametrize("options", OPTIONS)
def test_interpreter_options(options: str, tmp_path: Path, run_command: RunCommand) -> None:
    """A rank has the flags, -X options, warning options, path and encodings of the launcher."""
    script = tmp_path / "launcher.py"
    script.write_text(launcher_of("interpreter"))
    words = options.split()

    seen = probes.one_view(run_command(sys.executable, *words, script, "a word"))

    script.write_text(f"{probes.IMPORT}import json; print(json.dumps(probes.interpreter()))")
    here = probes.printed(run_command(sys.executable, *words, script))
    for what in ("flags", "warnoptions", "encodings"):
        assert seen[what] == here[what]
    assert seen["argv"] == [repr(str(script)), "'a word'"]
    assert str(conftest.HERE) in seen["path"]


CHANGED_PATH = """
from pathlib import Path
sys.path[1:1] = ["", "/nowhere/first", Path("/nowhere/second"), b"/nowhere/third"]
sys.path.append("/nowhere/last")
"""


def test_the_path_as_it_is_at_the_start(run_launcher: RunCommand) -> None:
    """Entries that the launcher has put into sys.path are there; '' is where it was started."""
    seen = probes.printed(run_launcher(launcher_of("strings_in_path", CHANGED_PATH)))

    assert seen["spawn"] == seen["multiprocessing"]
    assert seen["spawn"][1:3] == [os.getcwd(), "/nowhere/first"]
    assert seen["spawn"][-1] == "/nowhere/last"


@pytest.mark.parametrize(
    "words",
    [
        ["PosixPath('a/path')", "5", "'\\udcff'", "['list', PosixPath('b')]", "None"],
        ["bytearray(b'bytes')", "b'bytes'", "array('i', [1, 2])"],
    ],
)
@pytest.mark.posix("paths of POSIX")
def test_arguments_of_any_type(words: list[str], run_launcher: RunCommand) -> None:
    """sys.argv arrives as it is, whatever a launcher has put into it."""
    setup = f"from array import array\nfrom pathlib import *\nsys.argv[1:] = [{', '.join(words)}]"

    seen = probes.one_view(run_launcher(launcher_of("interpreter", setup)))

    assert seen["argv"][1:] == words


NO_ARGUMENTS = """
if __name__ == "__main__":
    path = sys.argv[0] + ".json"
    sys.argv.clear()
    flamespawn.spawn(probes.write_view, (path, probes.arguments))
    print(open(path).read())
"""


def test_no_arguments_at_all(run_launcher: RunCommand) -> None:
    """A launcher may have emptied sys.argv, which is more than multiprocessing can do."""
    assert probes.printed(run_launcher(probes.IMPORT + NO_ARGUMENTS)) == []


NEW_SURROUNDINGS = """
import os
os.mkdir(sys.argv[1])
os.chdir(sys.argv[1])
os.umask(0o027)
os.nice(1)
os.environ["ADDED"] = "\\udcff = x"
del os.environ["REMOVED"]
os.putenv("PUT", "1")
"""


@pytest.mark.posix("umask, sessions and niceness")
def test_the_surroundings(
    tmp_path: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folder, environment, umask and group are the launcher's; stdin is empty."""
    script = tmp_path / "launcher.py"
    script.write_text(launcher_of("surroundings", NEW_SURROUNDINGS))
    folder = tmp_path / "a folder: \u00f6\udcff"
    launcher = run_command(sys.executable, script, folder, env={"REMOVED": "1"})
    assert launcher.stdin is not None
    launcher.stdin.write("not for ranks")

    seen = probes.one_view(launcher)

    environ = seen["environ"]
    assert (seen["cwd"], seen["umask"], seen["stdin"]) == (str(folder), 0o027, ["", os.devnull])
    assert (environ["ADDED"], environ["PUT"], "REMOVED" in environ) == ("\udcff = x", "1", False)
    assert seen["group"]
    assert seen["session"]


@pytest.mark.parametrize(
    ("locale", "coerce"),
    [("C", "0"), ("C", "1"), ("POSIX", "0"), ("C.UTF-8", "0"), ("no such locale", "1")],
)
@pytest.mark.posix("locales of the environment")
def test_any_locale(locale: str, coerce: str, tmp_path: Path, run_command: RunCommand) -> None:
    """Words and paths that are not ASCII arrive in any locale, and bytes that are no text too."""
    folder = tmp_path / "\u00f6\u4e16"
    folder.mkdir()
    script = folder / "\u00e4.py"
    script.write_text(launcher_of("interpreter"))
    words = os.fsencode("\u00fc"), b"\xff"
    environment = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": coerce, "PYTHONUTF8": "0"}
    command = [sys.executable, os.fsencode(script), *words]
    code = f"import os, sys; os.environ |= {environment!r}; os.execv(sys.executable, {command!r})"

    seen = probes.one_view(run_command(sys.executable, "-c", code))

    encoding = seen["encodings"][0]
    arguments = [repr(word.decode(encoding, "surrogateescape")) for word in words]
    assert seen["argv"][1:] == arguments


WRAPPER = """#!/bin/sh
WRAPPED=yes exec {python} "$@"
"""


@pytest.mark.posix("scripts as programs")
def test_another_executable(tmp_path: Path, run_launcher: RunCommand) -> None:
    """What multiprocessing.set_executable() was told is what is started."""
    wrapper = tmp_path / "my python"
    wrapper.write_text(WRAPPER.format(python=sys.executable))
    wrapper.chmod(0o755)
    setup = f"import multiprocessing; multiprocessing.set_executable({str(wrapper)!r})\n"

    seen = probes.one_view(run_launcher(launcher_of("surroundings", setup)))

    assert seen["environ"]["WRAPPED"] == "yes"


EARLY = """
import multiprocessing, os, sys
import flamespawn
with open(os.environ["EARLY"], "a") as file:
    print(sys.argv[1:2], file=file)
"""


def test_a_customized_site_that_was_faster(tmp_path: Path, run_command: RunCommand) -> None:
    """A rank may have imported multiprocessing and flamespawn before it knows what it is."""
    (tmp_path / "sitecustomize.py").write_text(EARLY)
    log = tmp_path / "log"
    script = tmp_path / "launcher.py"
    script.write_text(launcher_of("who_am_i"))
    path = os.pathsep.join([str(tmp_path), str(conftest.HERE)])

    seen = probes.one_view(
        run_command(sys.executable, script, env={"PYTHONPATH": path, "EARLY": str(log)})
    )

    assert seen["start_method"] == "spawn"
    assert str([flamespawn.RANK_MARK]) in log.read_text()


# ------------------------------------------------------------------------- signals and descriptors


CHANGED_SIGNALS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGRTMIN})
for number in (signal.SIGUSR2, signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
signal.signal(signal.SIGALRM, print)
if sys.argv[1] == "threads":
    probes.without_handles()
"""


@pytest.mark.parametrize("mechanism", ["handles", "threads"])
@pytest.mark.posix("signal masks")
def test_signals_start_afresh(mechanism: str, run_launcher: RunCommand) -> None:
    """A rank blocks nothing, and ignores only what a shell ignores on behalf of a whole job."""
    source = launcher_of("signals", CHANGED_SIGNALS)

    seen = probes.printed(run_launcher(source, mechanism))["spawn"]

    # Python itself ignores two.
    ignored = {signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ}
    # posix_spawn() of glibc, which make uses, leaves two internal signals ignored for all below it.
    seen["SigIgn"] = [number for number in seen["SigIgn"] if number < signal.SIGRTMIN - 2]
    assert seen == {"SigBlk": [], "SigIgn": sorted(ignored)}


def test_only_intended_descriptors_are_inherited(mechanism: str, tmp_path: Path) -> None:
    """An inheritable descriptor of the launcher is not in a rank, and a rank hands on none."""
    with (tmp_path / "not for ranks").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        seen = probes.views(probes.descriptors)

    for view in (seen["spawn"], seen["get_context"]):
        assert not any("not for ranks" in name for name in view)
        assert not any(view.values()), view


CLOSED = """
if __name__ == "__main__":
    if sys.argv[2] == "threads":
        probes.without_handles()
    flamespawn.spawn(jobs.write_standard_streams, (sys.argv[1],), 3)
    context = flamespawn.spawn(jobs.exit_with_message, join=False)
    try:
        context.join()
    except flamespawn.ProcessExitedException as error:
        with open(sys.argv[1], "a") as file:
            print(*error.__notes__, file=file)
"""


@pytest.mark.parametrize("mechanism", ["handles", "threads"])
@pytest.mark.posix("descriptors 0 to 2")
def test_a_launcher_without_standard_streams(
    mechanism: str, tmp_path: Path, run_command: RunCommand
) -> None:
    """With descriptors 0 to 2 closed, ranks run, have no streams, and report as always."""
    script = tmp_path / "launcher.py"
    script.write_text(probes.IMPORT + CLOSED)
    log = tmp_path / "log"
    close = 'exec "$@" <&- >&- 2>&-'

    launcher = run_command("sh", "-c", close, "sh", sys.executable, script, log, mechanism)
    launcher.communicate(timeout=probes.SECONDS)

    assert launcher.returncode == 0
    *ranks, note = log.read_text().splitlines()
    assert sorted(ranks) == [f"{rank} ['/dev/null', None, None]" for rank in range(3)]
    assert note == "Rank 0 exited with the message: the message"


# ----------------------------------------------------------------------------------- what can fail


def test_a_start_from_a_thread_that_ends(mechanism: str) -> None:
    """Ranks outlive the thread that has started them."""
    here, there = multiprocessing.Pipe()
    contexts: list[flamespawn.ProcessContext] = []

    def start() -> None:
        context = flamespawn.spawn(jobs.wait_for_release, ([there],), join=False)
        contexts.append(context)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert not contexts[0].join(timeout=0)
    here.send("go")

    assert contexts[0].join()
    here.close()
    there.close()


@pytest.fixture
def executable() -> Iterator[Callable[[object], None]]:
    """Return `multiprocessing.set_executable`, which is undone."""
    before = multiprocessing.spawn.get_executable()
    yield multiprocessing.set_executable
    multiprocessing.set_executable(before)


@pytest.mark.parametrize("nprocs", [1, 5])
def test_a_missing_interpreter_is_named(
    nprocs: int, mechanism: str, executable: Callable[[object], None]
) -> None:
    """FileNotFoundError has the name of the interpreter that does not exist."""
    executable("/nowhere/python")

    with pytest.raises(FileNotFoundError) as caught:
        flamespawn.spawn(jobs.nothing, nprocs=nprocs)

    assert caught.value.filename == "/nowhere/python"
    assert conftest.children() == set()


@pytest.mark.posix("scripts as programs")
def test_an_interpreter_that_cannot_be_run(
    mechanism: str, executable: Callable[[object], None], tmp_path: Path
) -> None:
    """PermissionError has the name of a file that is no program, for process objects too."""
    file = tmp_path / "text"
    file.write_text("no program")
    executable(str(file))
    process = flamespawn.get_context().Process(target=print)

    for start in (lambda: flamespawn.spawn(jobs.nothing, nprocs=2), process.start):
        with pytest.raises(PermissionError) as caught:
            start()
        assert caught.value.filename == str(file)

    assert multiprocessing.active_children() == []


OUT_OF_DESCRIPTORS = """
import gc, os, resource, sys
from multiprocessing import resource_tracker
import flamespawn, jobs, probes

if __name__ == "__main__":
    if sys.argv[1] == "threads":
        probes.without_handles()
    flamespawn.spawn(jobs.nothing)
    gc.collect()
    used = len(os.listdir("/proc/self/fd")) - 1
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    failed = 0
    for spare in range(32):
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, limit[1]))
        try:
            context = flamespawn.spawn(jobs.nothing, nprocs=2, join=False)
        except OSError as error:
            assert "Too many open files" in str(error), error
            failed += 1
        else:
            context.stop()
            del context
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        assert children == [str(resource_tracker._resource_tracker._pid)], spare
        gc.collect()
        now = len(os.listdir("/proc/self/fd")) - 1
        assert now == used, (spare, now - used)
    print(failed)
"""


@pytest.mark.parametrize("mechanism", ["handles", "threads"])
@pytest.mark.posix("RLIMIT_NOFILE")
def test_a_start_without_enough_descriptors(mechanism: str, run_launcher: RunCommand) -> None:
    """Wherever the descriptors run out, the error says so, and no rank or descriptor is left."""
    assert 5 < probes.printed(run_launcher(OUT_OF_DESCRIPTORS, mechanism)) < 32


INTERRUPTED = """
import os, random, signal, sys, time
import flamespawn, jobs

if __name__ == "__main__":
    random.seed(int(sys.argv[1]))
    interrupted = 0
    for _ in range(25):
        try:
            context = flamespawn.spawn(jobs.nothing, nprocs=4, join=False)
            # A random moment in the life of the ranks: there is nothing to wait for.
            time.sleep(random.random() * 0.08)
            os.killpg(0, signal.SIGINT)
            time.sleep(60)
        except KeyboardInterrupt:
            context.stop()
            interrupted += 1
    print(interrupted)
"""


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.posix("killpg")
def test_ctrl_c_while_ranks_start(seed: int, run_launcher: RunCommand) -> None:
    """Whenever a Ctrl-C comes, no rank prints a traceback."""
    assert probes.printed(run_launcher(INTERRUPTED, seed)) == 25


INTERRUPTED_IN_A_CALLBACK = """
import os, signal
import flamespawn, jobs

class Gone:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__mp_main__":
    Gone()
elif __name__ == "__main__":
    try:
        flamespawn.spawn(jobs.nothing)
    except flamespawn.ProcessRaisedException as error:
        print(f'"{error.error_type}"')
"""


@pytest.mark.posix("SIGINT sent by os.kill")
def test_ctrl_c_where_the_interpreter_cannot_raise_it(run_launcher: RunCommand) -> None:
    """A Ctrl-C during a callback in a rank that starts is neither printed nor lost."""
    assert probes.printed(run_launcher(INTERRUPTED_IN_A_CALLBACK)) == "KeyboardInterrupt"
