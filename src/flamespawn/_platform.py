"""
The halves of this package that belong to this system. The only module that asks which one it is.

Modules in pairs, such as `_popen_posix` and `_popen_windows`, have the same names for each system,
and are to be had from here. Every rank imports this module: the launcher's halves are imported when
somebody asks for what is in them.
"""

import sys

if sys.platform == "win32":
    from flamespawn import _here_windows as here

    _SYSTEM = "windows"
else:
    from flamespawn import _here_posix as here

    _SYSTEM = "posix"

# What `ru_maxrss` counts in, in bytes.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024

TYPE_CHECKING = False
if TYPE_CHECKING:
    # The types are the same for all systems.
    from flamespawn._limits_posix import *  # noqa: F403
    from flamespawn._multiprocessing_posix import *  # noqa: F403
    from flamespawn._popen_posix import *  # noqa: F403
    from flamespawn._system_posix import *  # noqa: F403

# Each may use those before it.
_HALVES = ("_system", "_multiprocessing", "_popen", "_limits")


def __getattr__(name: str) -> object:
    # Every `from` asks for `__path__`.
    if not name.startswith("__"):
        from importlib import import_module  # noqa: PLC0415 - a rank does without

        for half in _HALVES:
            module = import_module(f"flamespawn.{half}_{_SYSTEM}")
            if hasattr(module, name):
                return getattr(module, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


# What a rank uses of this module is `here`.
__all__ = ["here"]
