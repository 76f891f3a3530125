"""Standard error of ranks of `spawn` before they come to code of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flamespawn
import jobs
from flamespawn import _early_stderr

pytestmark = pytest.mark.usefixtures("mechanism")


@pytest.fixture
def at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have every new interpreter run some code first."""

    def run(code: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return run


def failure(nprocs: int = 2) -> flamespawn.ProcessExitedException:
    with pytest.raises(flamespawn.ProcessExitedException) as caught:
        flamespawn.spawn(jobs.nothing, (), nprocs)
    return caught.value


@pytest.mark.posix("files that are opened anew")
def test_the_last_words_of_an_interpreter(at_start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """What a rank says before it dies is in the exception, and on the launcher's stderr."""
    at_start("import os\nos.write(2, b'my last words\\n')\nos._exit(3)\n")
    error = failure(1)

    assert str(error) == "process 0 terminated with exit code 3"
    assert error.__notes__ == [
        "Rank 0 ended before its function was called. The end of its stderr:\n  my last words"
    ]
    assert capfd.readouterr().err == "my last words\n"


@pytest.mark.posix("files that are opened anew")
def test_each_rank_has_its_own_words(at_start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The words of one rank are not those of another, however much they say."""
    at_start(
        "import os, sys\n"
        "rank = next(word for word in sys.orig_argv if word.startswith('rank='))\n"
        "if rank == 'rank=2':\n"
        "    os.write(2, b'not so good\\n')\n"
        "    os._exit(3)\n"
        "os.write(2, b'all is well\\n' * 10000)\n"
    )
    error = failure(4)

    assert error.error_index == 2
    assert error.__notes__[0].endswith("The end of its stderr:\n  not so good")
    assert "not so good\n" in capfd.readouterr().err


@pytest.mark.posix("files that are opened anew")
def test_long_last_words(at_start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """The exception shows the end, cut to some lines and columns; stderr has it all."""
    at_start(
        "import os\nfor n in range(1000): os.write(2, b'%d %s\\n' % (n, b'x' * 999))\nos._exit(3)"
    )
    (note,) = failure(1).__notes__

    lines = note.splitlines()[1:]
    assert len(lines) == 12
    assert lines[-1].startswith("  999 xxx")
    assert all(len(line) <= 402 for line in lines)
    assert len(capfd.readouterr().err.splitlines()) == 1000


@pytest.mark.posix("files that are opened anew")
def test_an_interpreter_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An interpreter without its library says so in the exception."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    note = failure().__notes__[0]

    assert "ended before its function was called. The end of its stderr:" in note
    assert "encodings" in note
    assert "encodings" in capfd.readouterr().err


def test_words_of_a_rank_that_goes_on(at_start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """What a rank says before it comes to our code is on the launcher's stderr, in order, once."""
    at_start("import sys\nsys.stderr.write('early\\n')\nsys.stderr.write('and ')")
    flamespawn.spawn(write_late)

    assert capfd.readouterr().err.splitlines() == ["early", "and late"]


def write_late(rank: int) -> None:
    sys.stderr.write("late\n")
    os.write(2, b"")


def test_a_stderr_that_the_interpreter_has_chosen(
    at_start: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A standard error that was opened in place of the first one stays."""
    path = tmp_path / "log"
    at_start(
        "import os\n"
        "os.write(2, b'early\\n')\n"
        f"os.dup2(os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY), 2)\n"
    )
    flamespawn.spawn(write_late)

    assert path.read_text().split() == ["late"]
    assert capfd.readouterr().err == "early\n"


@pytest.fixture(
    params=[
        "no way to open files anew",
        pytest.param("limit on files", marks=pytest.mark.posix("RLIMIT_FSIZE")),
    ]
)
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a test as if the file could not be had."""
    if request.param == "limit on files":
        import resource

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    else:
        monkeypatch.setattr(_early_stderr, "can_open_anew", lambda: False)
        yield


@pytest.mark.usefixtures("without")
def test_without_the_file(at_start: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the file cannot be had, ranks have the launcher's stderr from the beginning."""
    at_start("import os\nos.write(2, b'my last words\\n')\nos._exit(3)\n")

    assert failure(1).__notes__ == [
        "Rank 0 ended before its function was called; the reason is on its stderr."
    ]
    assert capfd.readouterr().err == "my last words\n"


@pytest.mark.posix("a shell")
def test_a_launcher_without_stderr(run_launcher: Any) -> None:
    """Ranks of a launcher without standard error have none, and run."""
    launcher = run_launcher(
        "import flamespawn, jobs\n"
        "if __name__ == '__main__':\n"
        "    flamespawn.spawn(jobs.nothing, (), 2)\n"
        "    print('done')\n",
        prefix=("sh", "-c", 'exec "$@" 2>&-', "sh"),
    )
    out, _ = launcher.communicate(timeout=60)

    assert out.endswith("done\n")
