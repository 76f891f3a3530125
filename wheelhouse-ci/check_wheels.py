"""
Check what was built: names and tags, size, contents, libraries, and the stable ABI.

Usage: check_wheels.py FOLDER [TARGET...]   (all targets with a backend where none is named)
"""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pefile
from elftools.elf.elffile import ELFFile

from targets import Matrix, Target, load

BIN = Path(sys.executable).parent

# All that a wheel may contain; the version is in the name of the last folder.
CONTENTS = (
    re.compile(r"flamespawn/\w+\.pyi?"),
    re.compile(r"flamespawn/py\.typed"),
    re.compile(r"flamespawn/_\w+(\.abi3\.so|\.pyd)"),
    re.compile(r"flame/pytorch/utils/(spawn\.pyi?|py\.typed)"),
    re.compile(r"flamespawn-[^/]+\.dist-info/[\w./-]+"),
)

# What a module may be linked with, besides CPython.
LIBRARIES = re.compile(
    r"libc\.so\.6|libpthread\.so\.0|ld-linux-[\w-]+\.so\.[12]|libc\.musl-\w+\.so\.1"
    r"|/usr/lib/libSystem\.B\.dylib"
    r"|python3\.dll|kernel32\.dll|advapi32\.dll|ntdll\.dll|api-ms-win-crt-[\w-]+\.dll",
    re.IGNORECASE,
)

# The names of the machines in ELF, PE and Mach-O (cputype) headers.
MACHINES = {
    "x86_64": {"EM_X86_64", "IMAGE_FILE_MACHINE_AMD64", 0x01000007},
    "aarch64": {"EM_AARCH64", "IMAGE_FILE_MACHINE_ARM64", 0x0100000C},
}


def fail(message: str) -> None:
    """Raise SystemExit."""
    raise SystemExit(message)


def check_elf(path: str, archive: zipfile.ZipFile) -> tuple[object, list[str]]:
    """Return the machine of a module, and the libraries that it is linked with."""
    with archive.open(path) as file:
        elf = ELFFile(file)
        tags = elf.get_section_by_name(".dynamic").iter_tags()
        return elf["e_machine"], [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]


def check_pe(path: str, archive: zipfile.ZipFile) -> tuple[object, list[str]]:
    """Return the same of a DLL."""
    module = pefile.PE(data=archive.read(path))
    return (
        pefile.MACHINE_TYPE[module.FILE_HEADER.Machine],
        [entry.dll.decode() for entry in module.DIRECTORY_ENTRY_IMPORT],
    )


def check_macho(path: str, archive: zipfile.ZipFile) -> tuple[object, list[str]]:
    """Return the same of a dylib for one machine."""
    data = archive.read(path)
    load_dylib, header = 0xC, 32
    libraries = []
    offset = header
    for _ in range(int.from_bytes(data[16:20], "little")):
        command = int.from_bytes(data[offset : offset + 4], "little")
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        if command == load_dylib:
            name = int.from_bytes(data[offset + 8 : offset + 12], "little")
            libraries.append(data[offset + name : offset + size].split(b"\0")[0].decode())
        offset += size
    return int.from_bytes(data[4:8], "little"), libraries


READERS = {"linux": check_elf, "win": check_pe, "macosx": check_macho}


def check_contents(wheel: Path, target: Target) -> None:
    """Check the names in a wheel, its metadata, and what its modules are."""
    suffix = ".pyd" if target.system == "win" else ".abi3.so"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for name in names:
            if not any(pattern.fullmatch(name) for pattern in CONTENTS):
                fail(f"{wheel.name}: {name} does not belong into a wheel")
        (metadata,) = (name for name in names if name.endswith(".dist-info/WHEEL"))
        said = email.message_from_string(archive.read(metadata).decode())
        expected = {f"cp311-abi3-{tag}" for tag in target.tags}
        if set(said.get_all("Tag", [])) != expected or said["Root-Is-Purelib"] != "false":
            fail(f"{wheel.name}: wrong metadata:\n{said}")
        # A stub without source tells the types of a module that is compiled.
        stubs = {name.removesuffix(".pyi") for name in names if name.endswith(".pyi")}
        modules = {stub + suffix for stub in stubs if f"{stub}.py" not in names}
        found_modules = {name for name in names if name.endswith((".so", ".pyd"))}
        if modules != found_modules or not modules:
            fail(f"{wheel.name}: has {sorted(found_modules)}, not {sorted(modules)}")
        for path in sorted(modules):
            machine, libraries = READERS[target.system](path, archive)
            if machine not in MACHINES[target.machine]:
                fail(f"{wheel.name}: {path} is for {machine}")
            for library in libraries:
                if not LIBRARIES.fullmatch(library):
                    fail(f"{wheel.name}: {path} needs {library}")


def check_policy(wheel: Path, target: Target) -> None:
    """Let auditwheel say how old a system may be; it has to be what the name says."""
    said = subprocess.run(
        [BIN / "auditwheel", "show", wheel], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r'platform\s+tag:\s+"(\w+)"', " ".join(said.split()))
    if found is None or found[1] not in target.tags:
        fail(f"{wheel.name}: auditwheel says\n{said}")


def check_sdist(folder: Path) -> None:
    """The source distribution has the sources, and nothing that was generated from them."""
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        fail(f"{folder} has {len(archives)} source distributions")
    with tarfile.open(archives[0]) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()}
    for needed in ("setup.py", "csrc/procset.h", "src/flamespawn/_native.pyx", "LICENSE"):
        if PurePosixPath(needed) not in names:
            fail(f"{archives[0].name}: {needed} is missing")
    for name in names:
        generated = name.name in {"_native.c", "__pycache__"} or name.parts[:1] == ("build",)
        if generated or name.suffix in {".so", ".pyd", ".o", ".pyc"}:
            fail(f"{archives[0].name}: {name} does not belong there")


def check(folder: Path, targets: list[Target], matrix: Matrix) -> None:
    """
    Check a folder with one wheel for each target, and the source distribution.

    Raises:
        SystemExit: something is wrong; the first such thing is named.
    """
    check_sdist(folder)
    wheels = {target.wheel_in(folder): target for target in targets}
    for wheel in folder.glob("*.whl"):
        if wheel not in wheels:
            fail(f"{wheel.name} is for no target")
    for wheel, target in wheels.items():
        size = wheel.stat().st_size
        if size > matrix.max_bytes:
            fail(f"{wheel.name} has {size} bytes; {matrix.max_bytes} is the limit")
        check_contents(wheel, target)
        if target.system == "linux":
            check_policy(wheel, target)
    result = subprocess.run(
        [BIN / "abi3audit", "--strict", "--report", *wheels],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        fail(f"abi3audit says\n{result.stdout}{result.stderr}")
    for wheel in wheels:
        print(f"checked {wheel.name}: {wheel.stat().st_size} bytes")


def main() -> None:
    matrix = load()
    chosen = matrix.select(sys.argv[2:])
    check(Path(sys.argv[1]), [target for target in chosen if target.backend], matrix)


if __name__ == "__main__":
    main()
