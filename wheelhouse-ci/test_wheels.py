"""
Install each wheel into a clean environment, and run a real job there.

Usage: test_wheels.py [--newest] [--musl] [TARGET...]

What has no interpreter here is brought: a Debian for another machine, which qemu runs; with
--newest one with the newest CPythons; with --musl CPythons that are built against musl; a CPython
for Windows, which Wine runs. They are kept in build/. What could not be tried is named at the end.
TARGET may also be "sdist".
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pip

from targets import HERE, ROOT, Target, load

BUILD = ROOT / "build"
TIME_LIMIT = 900
# Interpreters that the ones at hand lack, by the packages of Debian's development version.
NEWEST = ("3.14", "3.15")
# The machines of targets for musl, and what Debian calls them.
MUSL = {
    "musllinux-x86_64": ("x86_64", "amd64"),
    "musllinux-aarch64": ("aarch64", "arm64"),
}


@dataclass(frozen=True)
class Place:
    """
    Somewhere that a wheel is tried.

    Attributes:
        python: the interpreter, by its path there.
        root: the folder that is the root of the file system there; None for the one here.
    """

    python: str
    root: Path | None = None


def run(*command: object, **environment: str) -> str:
    """
    Run a command, and return what it prints.

    Raises:
        SystemExit: it failed, or took too long; what it printed comes first.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        result = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean | environment,
            check=False,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"took too long: {error.cmd}\n{error.output}") from None
    if result.returncode:
        sys.stdout.write(result.stdout)
        raise SystemExit(f"failed with {result.returncode}: {' '.join(map(str, command))}")
    return result.stdout


def pythons_here() -> dict[str, str]:
    """Return the interpreters of this machine, by their versions."""
    lines = run(HERE / "find-pythons").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def debian(name: str, suite: str, architecture: str, packages: list[str]) -> Path:
    root = BUILD / "roots" / name
    if architecture != "amd64":
        run(HERE / "install", "qemu-user-static")
    print(f"-- Debian {suite} for {architecture}: {root.relative_to(ROOT)}", flush=True)
    run(HERE / "make-root", root, suite, architecture, ",".join(packages))
    return root


def places(target: Target, options: argparse.Namespace) -> Iterator[Place]:
    """Yield where the wheel for *target* can be tried."""
    if target.name == "manylinux-x86_64":
        for python in pythons_here().values():
            yield Place(python)
        if options.newest:
            root = debian("sid", "sid", "amd64", [f"python{version}" for version in NEWEST])
            for version in NEWEST:
                yield Place(f"/usr/bin/python{version}", root)
    elif target.name == "manylinux-aarch64":
        yield Place("/usr/bin/python3", debian("arm64", "bookworm", "arm64", ["python3"]))
    elif target.name in MUSL and options.musl:
        machine, architecture = MUSL[target.name]
        root = debian(f"musl-{architecture}", "bookworm", architecture, ["musl"])
        said = run(HERE / "make-musl-python", root, machine, PYTHON=sys.executable)
        yield Place(said.splitlines()[-1], root)


def windows_test(wheel: Path, version: str) -> None:
    """Run the job on the real CPython for Windows, under Wine."""
    run(HERE / "check-wine")
    stdlib = run(HERE / "find-stdlib", version).splitlines()[-1]
    made = run(sys.executable, HERE / "wine_python.py", version, stdlib)
    with tempfile.TemporaryDirectory() as name:
        fits = ("--platform", "win_amd64", "--python-version", version, "--only-binary", ":all:")
        run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
            *(*fits, "--target", name, wheel),
        )
        shutil.copy(HERE / "smoke.py", name)
        wine = (HERE / "run-wine", BUILD / "wine" / "prefix")
        try:
            # The folder of a script is the first from which it imports.
            said = run(*wine, made.splitlines()[-1], "-W", "error", f"Z:{name}/smoke.py")
        finally:
            run(*wine)
        print(said, end="", flush=True)


def smoke_test(place: Place, wheel: Path) -> None:
    """Install a wheel with pip as pip does it there, and run the job."""
    with tempfile.TemporaryDirectory() as name:
        stage = Path(name)
        # A system without pip lends ours, which needs no installation.
        shutil.copytree(Path(pip.__file__).parent, stage / "lent" / "pip")
        shutil.copy(wheel, stage)
        shutil.copy(HERE / "smoke.py", stage)
        if place.root is None:
            prefix, there = [], stage
        else:
            prefix, there = [HERE / "in-root", place.root, stage], Path("/mnt")
        python = there / "env" / "bin" / "python"
        lent = ("/usr/bin/env", f"PYTHONPATH={there / 'lent'}")
        run(*prefix, place.python, "-m", "venv", "--without-pip", there / "env")
        install = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps")
        run(*prefix, *lent, python, *install, there / wheel.name)
        print(run(*prefix, python, "-W", "error", there / "smoke.py"), end="", flush=True)


def test_sdist(folder: Path) -> None:
    """Build the source distribution as pip does it for users, and run the job."""
    (sdist,) = folder.glob("*.tar.gz")
    python = list(pythons_here().values())[-1]
    with tempfile.TemporaryDirectory() as name:
        fresh = Path(name) / "bin" / "python"
        run(python, "-m", "venv", name)
        run(fresh, "-m", "pip", "install", "--quiet", sdist)
        print(run(fresh, "-W", "error", HERE / "smoke.py"), end="", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "wheelhouse")
    parser.add_argument("--newest", action="store_true")
    parser.add_argument("--musl", action="store_true")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()

    untried = []
    names = [name for name in options.targets if name != "sdist"]
    matrix = load()
    chosen = matrix.select(names) if names or not options.targets else []
    for target in chosen:
        tried = False
        if target.backend:
            wheel = target.wheel_in(options.folder)
            if target.system == "win" and (HERE / "run-wine").exists():
                print(f"== {wheel.name}", flush=True)
                windows_test(wheel, matrix.python)
                tried = True
            for place in places(target, options):
                if not tried:
                    print(f"== {wheel.name}", flush=True)
                smoke_test(place, wheel)
                tried = True
        if not tried:
            untried.append(target.name)
    if not options.targets or "sdist" in options.targets:
        print("== source distribution", flush=True)
        test_sdist(options.folder)
    for name in untried:
        print(f"NOT TRIED HERE: {name}")


if __name__ == "__main__":
    main()
