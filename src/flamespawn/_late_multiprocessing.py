"""
What `multiprocessing` says in a process that we have started, if anything there ever asks it.

Importing `multiprocessing` costs as much as starting the interpreter. So a rank does without, and
this module sees to it that whoever imports it later finds it as in a process of its own: with the
right `current_process()`, `parent_process()`, authentication key, start method, log level and
resource tracker.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_NAME = "multiprocessing"


class _Arrangement:
    """Sits in `sys.meta_path` until the package is imported, and puts it right after that."""

    def __init__(self, header: "dict[str, Any]", rank: int) -> None:
        self._header = header
        self._rank = rank

    def find_spec(
        self, name: str, path: "Sequence[str] | None", target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name != _NAME:
            return None
        # It may be asked for without being imported, and that more than once.
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None

    def put_right(self) -> None:
        """Make the imported package what it is to be in this process."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        _become_process(self._header, self._rank)
        _restore_settings(self._header)


class _Loader:
    """Loads a module as its own loader does, and then has it put right."""

    def __init__(self, loader: "Any", arrangement: "_Arrangement") -> None:
        self._loader = loader
        self._arrangement = arrangement

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: "ModuleType") -> None:
        spec: Any = module.__spec__
        module.__loader__ = spec.loader = self._loader
        self._loader.exec_module(module)
        self._arrangement.put_right()


def arrange(header: "dict[str, Any]", rank: int) -> None:
    """Put `multiprocessing` right, now or when it is imported."""
    arrangement = _Arrangement(header, rank)
    if _NAME in sys.modules:
        arrangement.put_right()
        return
    sys.meta_path.insert(0, arrangement)
    if header["process"] or "log_level" in header or header["log_to_stderr"]:
        import multiprocessing  # noqa: F401 - it puts itself right


def end_of_preparation() -> None:
    """Let processes be started by `multiprocessing`."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        vars(process.current_process()).pop("_inheriting", None)


def _become_process(header: "dict[str, Any]", rank: int) -> None:
    """Make the process objects that `current_process` and `parent_process` return."""
    import itertools
    from multiprocessing import context
    from multiprocessing import process as process_module

    from flamespawn._fresh import is_preparing

    process: Any = process_module
    process.ORIGINAL_DIR = header["orig_dir"]
    me: Any = process.current_process()
    if header["process"]:
        # The object comes with the payload, and takes over when it is run.
        me.name = header["name"]
        me.authkey = header["authkey"]
    else:
        me = context.SpawnProcess.__new__(context.SpawnProcess)
        identity = (*header["identity"], header["counts"][rank])
        vars(me).update(
            _identity=identity,
            _config=header["config"],
            _parent_pid=header["launcher_pid"],
            _parent_name=header["launcher_name"],
            _popen=None,
            _closed=False,
            _target=None,
            _args=(),
            _kwargs={},
            _name=f"{type(me).__name__}-{':'.join(map(str, identity))}",
        )
        me.authkey = header["authkey"]
        process._dangling.add(me)
        process._current_process = me
        process._process_counter = itertools.count(1)
        process._children = set()
        process._parent_process = process._ParentProcess(
            header["launcher_name"], header["launcher_pid"], header["launcher_fd"]
        )
    if is_preparing():
        me._inheriting = True


def _restore_settings(header: "dict[str, Any]") -> None:
    """Restore what the launcher had set in its `multiprocessing`."""
    import multiprocessing

    if header["installed"]:
        from flamespawn._mp_context import install

        install()
    # What a process object says for itself when it is run, a rank has to be told.
    method = header["start_method"] if header["process"] else "spawn"
    multiprocessing.set_start_method(method, force=True)
    if header["tracker_fd"] is not None:
        from multiprocessing import resource_tracker

        tracker: Any = resource_tracker._resource_tracker
        tracker._fd = header["tracker_fd"]
    if header["log_to_stderr"]:
        multiprocessing.log_to_stderr()
    if "log_level" in header:
        multiprocessing.get_logger().setLevel(header["log_level"])
