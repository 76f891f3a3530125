"""
Make a CPython for Windows that runs under Wine, with what the tests need.

Usage: wine_python.py VERSION STDLIB   (STDLIB: the standard library of a CPython of that version)

The real thing, from PyPI: the wheels of panda3d carry python3XY.dll and all extension modules of
the CPython of python.org. What is missing is made here: python.exe, the python3.dll that the
stable ABI is linked with, and the launcher of virtual environments, from CPython's source. All of
it goes to build/wine/VERSION; what is there already stays.

Runs in the environment that wheelhouse-ci/requirements.txt describes, and needs the packages
wine, wine64 and gcc-mingw-w64-x86-64, and sources of Debian.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from cross import python3_def

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "wine"
CC = "x86_64-w64-mingw32-gcc"
# Not numpy, which Wine 8 cannot load.
PACKAGES = ("pytest>=8", "psutil>=6", "hypothesis>=6", "markdown-it-py>=3", "colorama")
# DLLs that belong to extension modules; the others are the interpreter's.
OF_MODULES = ("libcrypto", "libffi", "libssl", "sqlite3", "tcl", "tk")
LEFT_OUT = ("__pycache__", "config-*", "idlelib", "lib-dynload", "site-packages", "test", "tests")
# Debian's own, which is elsewhere.
LEFT_OUT += ("sitecustomize.py",)
# The launcher in a virtual environment is a copy of one of these, the last two from 3.13 on.
VENV_LAUNCHERS = ("python.exe", "pythonw.exe", "venvlauncher.exe", "venvwlauncher.exe")


def run(*command: object, **options: object) -> None:
    subprocess.run([str(word) for word in command], check=True, **options)


def pip(*words: object) -> None:
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words)


def for_windows(version: str) -> tuple[str, ...]:
    return ("--only-binary=:all:", "--platform=win_amd64", f"--python-version={version}")


def add_interpreter(version: str, home: Path, scratch: Path) -> None:
    """Take the DLLs and the extension modules out of the wheel."""
    pip("download", "--no-deps", *for_windows(version), "-d", scratch, "panda3d")
    (wheel,) = scratch.glob("panda3d-*.whl")
    modules = home / "DLLs"
    modules.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            folder, _, name = entry.filename.rpartition("/")
            # Some modules come for the free-threaded interpreter as well.
            if folder != "deploy_libs" or name.endswith("t-win_amd64.pyd"):
                continue
            # Wine crashes when it is asked something; `platform` does without.
            if name == "_wmi.pyd":
                continue
            is_module = name.endswith(".pyd") or name.startswith(OF_MODULES)
            if is_module or name.endswith(".dll"):
                ((modules if is_module else home) / name).write_bytes(archive.read(entry))


def add_programs(version: str, home: Path, scratch: Path) -> None:
    """Compile python.exe and python3.dll."""
    dll = "python{}{}.dll".format(*version.split("."))
    flags = ("-O1", "-s", "-Wall", "-Wextra", "-Werror")
    named = f'-DPYTHON_DLL=L"{dll}"'
    run(CC, *flags, "-municode", named, "-o", home / "python.exe", HERE / "wine" / "python.c")
    major, minor = version.split(".")
    forward = scratch / "python3.def"
    forward.write_text(python3_def.definition((int(major), int(minor)), forward=True))
    bare = ("-shared", "-nostdlib", "-Wl,-e,DllMain")
    run(CC, *flags, *bare, "-o", home / "python3.dll", HERE / "wine" / "dllmain.c", forward)


def add_library(version: str, home: Path, stdlib: Path) -> None:
    """Copy the standard library, and install what the tests import."""
    shutil.copytree(stdlib, home / "Lib", ignore=shutil.ignore_patterns(*LEFT_OUT))
    packages = home / "Lib" / "site-packages"
    pip("install", "--no-compile", *for_windows(version), "--target", packages, *PACKAGES)


def add_venv_launcher(home: Path, scratch: Path) -> None:
    """Compile what `venv` copies into an environment; that of 3.11 serves later versions, too."""
    run(HERE / "debian-source", scratch, "python3.11")
    source = scratch / "python3.11" / "PC" / "launcher.c"
    # Warnings about it are not for us, and this C library has no fread_s().
    flags = ("-w", "-O1", "-s", "-municode", "-DUNICODE", "-D_UNICODE", "-D_CONSOLE")
    flags += ("-DVENV_REDIRECT", "-Dfread_s(buffer,size,...)=fread(buffer,__VA_ARGS__)")
    launcher = scratch / "launcher.exe"
    run(CC, *flags, "-o", launcher, source, "-lversion", "-lshlwapi")
    scripts = home / "Lib" / "venv" / "scripts" / "nt"
    scripts.mkdir()
    for name in VENV_LAUNCHERS:
        shutil.copy(launcher, scripts / name)


def main() -> None:
    version, stdlib = sys.argv[1], Path(sys.argv[2])
    home = BUILD / version
    if not home.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as name:
            scratch = Path(name)
            made = scratch / "made"
            add_interpreter(version, made, scratch)
            add_programs(version, made, scratch)
            add_library(version, made, stdlib)
            add_venv_launcher(made, scratch)
            made.rename(home)
    print(home / "python.exe")


if __name__ == "__main__":
    main()
