"""
Puts the modules that every process of ours needs into a fresh interpreter.

Their code comes with the payload, so that no file is searched for or read: not once for each rank,
not from a slow file system, and however the launcher has found this package. This code comes the
same way; `flamespawn._launch` sends both.
"""

import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import SourceFileLoader
from _frozen_importlib_external import _path_split as split  # type: ignore[attr-defined]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def boot(header: "dict[str, Any]") -> None:
    """Import the modules in *header*, and do what it says."""
    for name, path, code in header["modules"]:
        # A `sitecustomize` may have been faster.
        if name not in sys.modules:
            _import(name, path, code)
    sys.modules["flamespawn._fresh"].main(header)


def _import(name: str, path: str, code: "Any") -> None:
    """Do what an import does with a module that has been found."""
    package, _, own_name = name.rpartition(".")
    spec = ModuleSpec(name, SourceFileLoader(name, path), origin=path, is_package=not package)
    spec.has_location = True
    module = type(sys)(name)
    module.__file__ = path
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__package__ = package or name
    if not package:
        module.__path__ = spec.submodule_search_locations = [split(path)[0]]
    sys.modules[name] = module
    exec(code, module.__dict__)  # noqa: S102 - that is what an import does
    if package:
        setattr(sys.modules[package], own_name, module)
