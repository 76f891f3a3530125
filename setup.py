"""The extension module. Everything declarative is in pyproject.toml."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MINIMUM = (3, 11)

# For each system the suffixes of the files of csrc/ that belong to it, beside those without one.
# Which system that is, is what sysconfig.get_platform() starts with, not sys.platform: wheels are
# built for other systems than the one that builds.
SUFFIXES = {
    system: set(suffixes.split())
    for system, found, suffixes in (
        line.partition(":") for line in Path("csrc/systems.txt").read_text("utf-8").splitlines()
    )
    if found and not system.startswith("#")
}


def check_interpreter() -> None:
    """
    Refuse interpreters for which nothing has been built or tested.

    Raises:
        SystemExit: it is one.
    """
    if sys.implementation.name != "cpython":
        msg = f"flamespawn needs CPython; this is {sys.implementation.name}"
        raise SystemExit(msg)
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        msg = (
            "flamespawn does not support free-threaded CPython yet: it is built for the stable "
            "ABI, which that lacks, and has not been tested there; use CPython with the GIL"
        )
        raise SystemExit(msg)


def sources() -> list[str]:
    """
    Return the C files for the platform that is built for.

    Raises:
        SystemExit: there are none for it.
    """
    system = sysconfig.get_platform().partition("-")[0]
    if system not in SUFFIXES:
        msg = (
            f"flamespawn has no backend for {system} yet, and none in pure Python; "
            f"it supports: {', '.join(SUFFIXES)}"
        )
        raise SystemExit(msg)
    suffixes = SUFFIXES[system] | {""}
    files = sorted(Path("csrc").glob("*.c"))
    return [file.as_posix() for file in files if file.stem.partition(".")[2] in suffixes]


def limited_api() -> tuple[int, int]:
    """
    Return the version of the stable ABI to build for.

    It is the version of the interpreter that builds, never an older one: with
    newer headers the macros for older versions are wrong (gh-134989) and crash.
    So wheels that are to run on all versions are built with the minimum.
    """
    return max(MINIMUM, sys.version_info[:2])


check_interpreter()
major, minor = limited_api()
sanitizers = os.environ.get("FLAMESPAWN_SANITIZE", "")
# By the type of the compiler; those that are not named are like GCC. Microsoft's hides symbols
# unasked, and knows C11 only when told.
FLAGS = {
    "msvc": ["/std:c11"],
    "": ["-std=c11", "-fvisibility=hidden", "-Werror=implicit-function-declaration", "-g0"],
}
if sanitizers:
    FLAGS[""] += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g"]


class BuildExt(build_ext):
    """The build, with the flags of the compiler that it has chosen."""

    def build_extensions(self) -> None:
        """Build all of them."""
        flags = FLAGS.get(self.compiler.compiler_type, FLAGS[""])
        for module in self.extensions:
            module.extra_compile_args = flags
        super().build_extensions()


def extension(name: str, files: list[str]) -> Extension:
    """Return an extension for the stable ABI."""
    return Extension(
        name,
        files,
        include_dirs=["csrc"],
        depends=[file.as_posix() for file in Path("csrc").glob("*.h")],
        define_macros=[("Py_LIMITED_API", f"0x{major:02x}{minor:02x}0000")],
        extra_link_args=[f"-fsanitize={sanitizers}"] if sanitizers else [],
        py_limited_api=True,
    )


# What the small module that every rank imports is made of.
RANK_CONCEPTS = {
    "clock",
    "error",
    "guard",
    "guard_end",
    "handle",
    "hunt",
    "leave",
    "listing",
    "mark",
    "memory",
    "proc_handle",
    "thread",
    "tree",
}
rank_sources = [file for file in sources() if Path(file).name.partition(".")[0] in RANK_CONCEPTS]

setup(
    ext_modules=cythonize(
        [
            extension("flamespawn._native", ["src/flamespawn/_native.pyx", *sources()]),
            extension("flamespawn._rank_native", ["src/flamespawn/_rank_native.c", *rank_sources]),
        ],
        build_dir="build/cython",
        include_path=["src"],
    ),
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": f"cp{major}{minor}"}},
)
