"""What `multiprocessing` says in a rank, which imports it late or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path

import pytest

import flamespawn
import lean
import probes

RunCommand = Callable[..., "subprocess.Popen[str]"]

UNWANTED = """
multiprocessing threading pickle re functools enum collections signal subprocess tempfile typing
traceback logging inspect dataclasses contextlib importlib importlib.util mmap weakref
warnings __future__
flamespawn._spawn flamespawn._native flamespawn._context flamespawn._multiprocessing
"""
LEAN = """
import sys
import flamespawn, lean
if __name__ == "__main__":
    flamespawn.spawn(lean.write_modules, (sys.argv[1],))
"""
PLAIN = "import sys, lean; lean.write_modules(0, sys.argv[1])"


def test_a_rank_imports_next_to_nothing(tmp_path: Path, run_command: RunCommand) -> None:
    """A rank that does nothing imports neither multiprocessing nor anything else of some size."""
    script = tmp_path / "launcher.py"
    script.write_text(LEAN)
    modules = []
    for command in ([script], ["-c", PLAIN]):
        launcher = run_command(sys.executable, *command, tmp_path / "modules")
        assert launcher.communicate(timeout=probes.SECONDS) == ("", "")
        modules.append(set((tmp_path / "modules").read_text().splitlines()))

    added = modules[0] - modules[1]
    assert "flamespawn._rank" in added
    # On Windows it is built in, and the header is read with it.
    unwanted = set(UNWANTED.split()) - ({"mmap"} if os.name == "nt" else set())
    assert added & unwanted == set()
    assert len(added) < 22, added


# ----------------------------------------------------------------------------------- who is who


BOSS = """
import multiprocessing
multiprocessing.current_process().name = "boss"
multiprocessing.current_process().authkey = b"a key"
if sys.argv[1] != "None":
    multiprocessing.set_start_method(sys.argv[1])
"""


@pytest.mark.parametrize("start_method", [None, "fork", "spawn"])
def test_a_rank_knows_who_it_is(start_method: str | None, run_launcher: RunCommand) -> None:
    """current_process(), parent_process() and the like say what they say with multiprocessing."""
    views = f"{probes.IMPORT}if __name__ == '__main__':"
    body = f"{BOSS}\nprobes.print_views(probes.who_am_i)".replace("\n", "\n    ")

    seen = probes.one_view(run_launcher(views + body, start_method))

    assert seen["parent"] == ["boss", True, True]
    assert seen["name"] == "SpawnProcess-"
    assert seen["authkey"] == b"a key".hex()
    assert seen["start_method"] == "spawn"
    assert seen["children"] == []


STATEMENTS = {
    "at once": "",
    "by a part": "import multiprocessing.queues",
    "asked for before": "import importlib.util; importlib.util.find_spec('multiprocessing.pool')",
    "looked for before": "import importlib.util; importlib.util.find_spec('multiprocessing')",
    "in a thread": """
import threading
thread = threading.Thread(target=__import__, args=("multiprocessing",))
thread.start()
thread.join()
""",
}


@pytest.mark.parametrize("how", STATEMENTS)
def test_multiprocessing_is_right_however_late(how: str, tmp_path: Path) -> None:
    """Whoever imports it, whenever and how, finds the right process objects."""
    path = tmp_path / "view"

    flamespawn.spawn(lean.write_late_view, (str(path), STATEMENTS[how], "who_am_i"))

    seen = probes.views(probes.who_am_i)
    assert json.loads(path.read_text()) == seen["spawn"] == seen["multiprocessing"]


@pytest.mark.parametrize("daemon", [False, True])
def test_daemon_ranks_know_it(daemon: bool, tmp_path: Path) -> None:
    """The daemon flag is that of the start, in the rank and in its name's numbers."""
    path = tmp_path / "view"

    context = flamespawn.spawn(
        lean.write_late_view, (str(path), "", "names"), daemon=daemon, join=False
    )
    while not context.join():
        pass

    process = context.processes[0]
    seen = json.loads(path.read_text())
    assert seen == [process.name, daemon, list(process._identity), process.pid]


LOG = {
    "to stderr": "multiprocessing.log_to_stderr()",
    "to stderr from a level": 'multiprocessing.log_to_stderr("INFO")',
    "level": "multiprocessing.get_logger().setLevel(15)",
    "nothing": "",
}


@pytest.mark.parametrize("how", LOG)
def test_the_log(how: str, run_launcher: RunCommand) -> None:
    """The level of multiprocessing's logger is the launcher's, and so is its way to stderr."""
    source = f"{probes.IMPORT}import multiprocessing\nif __name__ == '__main__':\n    "
    source += f"{LOG[how]}\n    probes.print_views(probes.log)\n"
    launcher = run_launcher(source)

    seen = probes.one_view(launcher, silent="INFO" not in LOG[how])

    assert seen["handlers"] == ["StreamHandler"] * ("stderr" in how)


# --------------------------------------------------------------------------- parent and tracker


OUTLIVED = """
import multiprocessing, os, sys
import flamespawn, jobs, probes

if __name__ == "__main__":
    if sys.argv[1] == "threads":
        probes.without_handles()
    context = flamespawn.get_context()
    for rank in range(2):
        context.Process(target=jobs.wait_for_the_end_of_the_parent, args=(rank,)).start()
    # It has copies of all descriptors, and lives on.
    multiprocessing.get_context("fork").Process(target=jobs.sleep_forever).start()
    os.write(1, b"forked\\n")
    jobs.sleep_forever()
"""


@pytest.mark.parametrize("mechanism", ["handles", "threads"])
@pytest.mark.posix("fork")
def test_the_death_of_the_launcher_is_seen(mechanism: str, run_launcher: RunCommand) -> None:
    """
    parent_process() is alive until the launcher is killed; then its join() returns.

    A rank would not live to tell.
    """
    launcher = run_launcher(OUTLIVED, mechanism)
    assert launcher.stdout is not None
    assert sorted(launcher.stdout.readline() for _ in range(3)) == ["True\n", "True\n", "forked\n"]

    launcher.send_signal(signal.SIGKILL)

    assert [launcher.stdout.readline() for _ in range(2)] == ["False\n"] * 2


@pytest.mark.posix("shared memory that stays until it is unlinked")
def test_shared_memory_outlives_its_rank() -> None:
    """What a rank has made, and the launcher's resource tracker knows, is there when it is gone."""
    for name, seen in probes.views(probes.make_shared_memory, 100).items():
        memory = shared_memory.SharedMemory(seen)
        assert bytes(memory.buf[:100]) == bytes(range(100)), name
        memory.close()
        memory.unlink()


SHARED = """
import json, sys
from multiprocessing import shared_memory
import flamespawn, probes

if __name__ == "__main__":
    path = sys.argv[0] + ".json"
    flamespawn.spawn(probes.write_view, (path, probes.make_shared_memory, 100))
    with open(path) as file:
        shared_memory.SharedMemory(json.load(file)).unlink()
    memory = shared_memory.SharedMemory(create=True, size=100)
    views = probes.views(probes.attach_shared_memory, memory.name)
    assert list(views.values()) == [100] * 3, views
    names = probes.views(probes.make_shared_memory, 100)
    shared_memory.SharedMemory(memory.name).close()
    for name in names.values():
        shared_memory.SharedMemory(name).unlink()
    memory.unlink()
    print("true")
"""


@pytest.mark.posix("the resource tracker")
def test_the_resource_tracker_has_nothing_to_complain_about(run_launcher: RunCommand) -> None:
    """Launcher and ranks have the same one from the start, and are of one mind."""
    assert probes.printed(run_launcher(SHARED)) is True
