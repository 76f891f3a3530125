"""
What setuptools asks sysconfig, answered for a target of the zig compiler.

CPython loads this in place of its own answers where _PYTHON_SYSCONFIGDATA_NAME says so: its hook
for cross builds, so setup.py needs none. FLAMESPAWN_ZIG_TARGET names the target, and
FLAMESPAWN_ZIG_SCRATCH a folder for what is thrown away.

Facts about zig 0.17 that this file relies on:

- Without -fno-sanitize=undefined its C code stops at undefined behaviour, with a message of a
  runtime library that is then linked in.
- On Windows it writes an import library beside each DLL, which setuptools would pack.
- It takes a macOS without a version for the newest one. -bundle makes no difference: the result is
  a dylib, which CPython loads as well.
"""

import os
import shlex
import sys
from pathlib import Path

target = os.environ["FLAMESPAWN_ZIG_TARGET"]
here = Path(__file__).resolve().parent
python = shlex.quote(sys.executable)
compiler = f"{python} -m ziglang cc -target {target}"
flags = "-O2 -g0 -DNDEBUG -Wall -fno-sanitize=undefined"
linker = f"{compiler} -shared"
is_windows = "-windows" in target

if is_windows:
    # CPython's headers for POSIX hosts include the pyconfig.h of this machine. Ours comes first,
    # and has the guard that makes them skip it.
    flags += f" -include {shlex.quote(str(here / 'pyconfig.windows.h'))}"
    unused = Path(os.environ["FLAMESPAWN_ZIG_SCRATCH"]) / "unused.lib"
    # /Brepro puts a hash in the place of the time, for the same bytes every time.
    linker += f" -s -Wl,/Brepro -Wl,--out-implib,{shlex.quote(str(unused))}"
elif "-macos" in target:
    linker += " -Wl,-undefined,dynamic_lookup"
else:
    linker += " -s"

build_time_vars = {
    "AR": f"{python} -m ziglang ar",
    "ARFLAGS": "rcs",
    "CC": compiler,
    "CCSHARED": "" if is_windows else "-fPIC",
    "CFLAGS": flags,
    "CXX": compiler,
    # setuptools makes ".abi3.so" of what starts with ".cpython-".
    "EXT_SUFFIX": ".pyd" if is_windows else ".cpython-cross.so",
    "HAVE_DYNAMIC_LOADING": 1,
    "LDCXXSHARED": linker,
    "LDFLAGS": "",
    "LDSHARED": linker,
    "Py_DEBUG": 0,
    "Py_ENABLE_SHARED": 0,
    "Py_GIL_DISABLED": 0,
    "SHLIB_SUFFIX": ".so",
    "SOABI": "",
}
