"""The list of wheels: what is published, what is built, and what can be built agree."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MATRIX = load(ROOT / "wheelhouse-ci" / "targets.py").load()


def setup(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py, as every build does."""
    for module in ("setuptools", "Cython"):
        pytest.importorskip(module)
    return subprocess.run(
        [sys.executable, "setup.py", "-q", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_published_table() -> None:
    """The table in docs/platforms.md has each target once, in order, and says if there is one."""
    text = (ROOT / "docs" / "platforms.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]

    published = [(row[0], row[2], row[3]) for row in rows]

    oldest = "cp" + MATRIX.python.replace(".", "")
    assert published == [
        (
            f"`{target.tags[0]}`",
            f"`{oldest}-{target.cibuildwheel}`",
            "yes" if target.backend else "not yet",
        )
        for target in MATRIX.targets
    ]


@pytest.mark.posix("builds for another system than one's own")
@pytest.mark.parametrize("target", MATRIX.targets, ids=lambda target: target.name)
def test_a_target_is_built_where_there_is_a_backend(target: types.SimpleNamespace) -> None:
    """What the list says of a backend is what setup.py does when it builds for that platform."""
    result = setup("--version", _PYTHON_HOST_PLATFORM=target.host)

    assert (result.returncode == 0) == target.backend, result.stderr
    if not target.backend:
        assert result.stderr.count("\n") == 1
        assert f"no backend for {target.system} yet" in result.stderr


@pytest.mark.posix("builds for another system than one's own")
def test_an_exotic_system_is_refused_in_one_line() -> None:
    """On a system without a backend the build says what is supported, and nothing else."""
    result = setup("build_ext", _PYTHON_HOST_PLATFORM="haiku-1-x86_64")

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("flamespawn has no backend for haiku yet, and none in pure ")
    assert "it supports: linux" in result.stderr
    assert result.stderr.count("\n") == 1


FREE_THREADED = """
import importlib.util, sys, sysconfig
spec = importlib.machinery.PathFinder.find_spec({name!r}, {path!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
build_time_vars = module.build_time_vars | {{"Py_GIL_DISABLED": 1}}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there the answer is not in a module")
def test_free_threaded_cpython_is_refused_in_one_line(tmp_path: Path) -> None:
    """An interpreter that says it was built without the GIL is refused by name."""
    import sysconfig

    name = sysconfig._get_sysconfigdata_name()
    (tmp_path / "free_threaded.py").write_text(FREE_THREADED.format(name=name, path=sys.path))

    result = setup(
        "build_ext",
        PYTHONPATH=str(tmp_path),
        _PYTHON_SYSCONFIGDATA_NAME="free_threaded",
    )

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("flamespawn does not support free-threaded CPython yet")
    assert result.stderr.count("\n") == 1
