"""What users are told when something cannot be pickled."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import pytest

from flamespawn import _unpicklable

HERE = __name__
LOCK = "cannot pickle '_thread.lock' object"
DEEPER_THAN_ANY_LIMIT = 200_000


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...


class Slots:
    __slots__ = ("first", "second")


class SlotsAndDict(Slots):
    pass


@dataclasses.dataclass
class Inner:
    name: str
    lock: Any


@dataclasses.dataclass
class Outer:
    inner: Inner


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    lock: Any


class Pair(NamedTuple):
    left: Any
    right: Any


class Items(list):
    pass


class Given:
    """An object that is pickled as the test says, each time anew."""

    def __init__(self, reduced: Callable[[], Any]) -> None:
        self.__dict__["reduced"] = reduced

    def __reduce__(self) -> Any:
        return self.reduced()


class RaisesInGetstate:
    def __getstate__(self) -> object:
        raise ValueError("no state today")


class RaisesInReduce:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise OSError(5, "the disk is gone")


class Unshown:
    def __repr__(self) -> str:
        raise ZeroDivisionError


class UnshownError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class RaisesInAll(Unshown):
    def __getattribute__(self, name: str) -> Any:
        raise UnshownError


class RecursesForEver:
    def __getstate__(self) -> object:
        return self.__getstate__()


class Endless:
    """Its state refers to a new object of the same kind, without end."""

    def __getstate__(self) -> object:
        return {"next": Endless()}


def module_function() -> None: ...


def replaced() -> None: ...


def deleted() -> None: ...


REPLACED, DELETED = replaced, deleted
LAMBDA = lambda: None  # noqa: E731
del deleted


def replaced() -> None: ...


def told(*args: Any, fn: Any = print) -> str:
    """Return what users are told when they start *fn* with *args*."""
    try:
        ForkingPickler.dumps((fn, args))
    except Exception as error:
        return _unpicklable.explain({"fn": fn, "args": args}, ForkingPickler.dumps, error)
    return pytest.fail("it can be pickled")


def local_function() -> Any:
    def hook() -> None: ...

    return hook


def local_class() -> Any:
    class Model: ...

    return Model


def test_local_function() -> None:
    """A local function is named in the same words on every Python."""
    name = "'local_function.<locals>.hook'"
    assert told(fn=local_function()) == f"fn: cannot pickle local function {name}"
    assert told(0, {"model": Plain(hook=local_function())}) == (
        f"args[1]['model'].hook: cannot pickle local function {name}"
    )


def test_wrapped_function() -> None:
    """What is pickled by the name of the function that it wraps is told as that function."""
    assert told(functools.lru_cache(local_function())) == (
        "args[0]: cannot pickle local function 'local_function.<locals>.hook'"
    )
    assert told(functools.lru_cache(module_function)) == (
        f"args[0]: cannot pickle function '{HERE}.module_function': "
        "it is not what its module has under this name"
    )


def test_lambda() -> None:
    """A lambda is called one, wherever it was made."""
    assert told(fn=lambda: None) == "fn: cannot pickle lambda 'test_lambda.<locals>.<lambda>'"
    assert told(LAMBDA) == f"args[0]: cannot pickle lambda '{HERE}.<lambda>'"


def test_local_class() -> None:
    """A local class is named for itself and for its objects."""
    reason = "cannot pickle local class 'local_class.<locals>.Model'"
    assert told(local_class()) == f"args[0]: {reason}"
    assert told([local_class()()]) == f"args[0][0].__class__: {reason}"


def test_name_that_leads_elsewhere() -> None:
    """A function that its module does not have, or has no more, is said to be that."""
    assert told(REPLACED) == (
        f"args[0]: cannot pickle function '{HERE}.replaced': "
        "it is not what its module has under this name"
    )
    assert told(DELETED) == (
        f"args[0]: cannot pickle function '{HERE}.deleted': its module has nothing under this name"
    )


def test_class_of_no_module() -> None:
    """A class whose module cannot be imported is not found there."""
    made = type("Made", (), {"__module__": "no_such_module"})
    assert told(made) == (
        "args[0]: cannot pickle class 'no_such_module.Made': its module has nothing under this name"
    )


def test_lock_in_containers() -> None:
    """A path leads through lists, tuples and dicts, with keys as they are written."""
    lock = threading.Lock()
    assert told(1, [{"a": 1, ("x", 2): (lock,)}]) == f"args[1][0][('x', 2)][0]: {LOCK}"


def test_key_and_element() -> None:
    """A key or an element of a set is shown by itself, as it has no path."""
    hook = local_function()
    reason = "cannot pickle local function 'local_function.<locals>.hook'"
    assert told({"fine": 1, hook: 2}) == f"args[0] key {hook!r}: {reason}"
    assert told({hook}) == f"args[0] element {hook!r}: {reason}"
    assert told(frozenset([(1, hook)])) == f"args[0] element {(1, hook)!r}[1]: {reason}"


def test_key_without_repr() -> None:
    """A key that cannot be shown is called by its type; a long one is cut."""
    lock = threading.Lock()
    assert told({RaisesInAll: {"k" * 500: lock}}) == (
        f"args[0][<class '{HERE}.RaisesInAll'>]['{'k' * 76}...]: {LOCK}"
    )
    unshown = Unshown()
    assert told({unshown: lock}) == f"args[0][<Unshown object>]: {LOCK}"
    unshown.lock = lock
    assert told({unshown: 1}) == f"args[0] key <Unshown object>.lock: {LOCK}"


def test_nested_dataclass() -> None:
    """The fields of dataclasses are attributes, also if they are frozen and have slots."""
    lock = threading.Lock()
    assert told(Outer(Inner("a", lock))) == f"args[0].inner.lock: {LOCK}"
    assert told(Frozen("a", Frozen("b", lock))) == f"args[0].lock.lock: {LOCK}"


def test_slots() -> None:
    """What is in slots is found, with and without a __dict__ beside them."""
    for made in (Slots(), SlotsAndDict()):
        made.first, made.second = 1, threading.Lock()
        assert told(made) == f"args[0].second: {LOCK}"
    made.second = 2
    made.third = threading.Lock()
    assert told(made) == f"args[0].third: {LOCK}"


def test_partial() -> None:
    """A partial has a function, arguments and keyword arguments."""
    lock, hook = threading.Lock(), local_function()
    local = "cannot pickle local function 'local_function.<locals>.hook'"
    assert told(fn=functools.partial(print, 1, lock)) == f"fn.args[1]: {LOCK}"
    assert told(fn=functools.partial(print, x=lock)) == f"fn.keywords['x']: {LOCK}"
    assert told(fn=functools.partial(hook, 1)) == f"fn.func: {local}"


def test_bound_method() -> None:
    """A bound method is pickled with its object."""
    assert told(fn=Plain(lock=threading.Lock()).method) == f"fn.__self__.lock: {LOCK}"
    model = local_class()
    model.method = Plain.method
    assert told(fn=model().method) == (
        "fn.__self__.__class__: cannot pickle local class 'local_class.<locals>.Model'"
    )


def test_subclasses_of_containers() -> None:
    """Subclasses of containers are indexed as the containers are."""
    lock = threading.Lock()
    assert told(Items([1, lock])) == f"args[0][1]: {LOCK}"
    assert told(collections.OrderedDict(a=1, b=lock)) == f"args[0]['b']: {LOCK}"
    assert told(collections.deque([1, [lock]])) == f"args[0][1][0]: {LOCK}"
    assert told(Pair(1, Pair(lock, 2))) == f"args[0].right.left: {LOCK}"
    assert told(collections.defaultdict(local_function())) == (
        "args[0].__reduce__()[1][0]: cannot pickle local function 'local_function.<locals>.hook'"
    )


def test_reductions() -> None:
    """What a reducer returns is told by the place in it."""
    lock = threading.Lock()
    for reduced, place in (
        ((lock.acquire, ()), "[0].__reduce__()[1][0]"),
        ((print, (1, [lock])), "[1][1][0]"),
        ((Plain, (), [1, lock]), "[2][1]"),
        ((Plain, (), lock), "[2]"),
        ((Plain, (), {}, None, None, lock.acquire), "[5].__reduce__()[1][0]"),
    ):
        given = Given(functools.partial(tuple, reduced))
        assert told(given) == f"args[0].__reduce__(){place}: {LOCK}"


def test_error_of_the_user() -> None:
    """An exception that the user's own code raises is shown with its type."""
    assert told([RaisesInGetstate()]) == "args[0][0]: ValueError: no state today"
    assert told(a := RaisesInReduce(), a) == "args[0]: OSError: [Errno 5] the disk is gone"
    assert told(Plain(a=RaisesInAll())) == "args[0].a: UnshownError: <UnshownError object>"
    assert told(Given(lambda: 1 / 0)) == "args[0]: ZeroDivisionError: division by zero"


def test_wrong_reduction() -> None:
    """A reducer that returns nonsense is to blame itself."""
    for nonsense in (None, (), (1,), (print, 1), (print, (), 1, 2, 3, 4, 5), "no such name"):
        assert told(Given(lambda nonsense=nonsense: nonsense)).startswith("args[0]: ")


def test_cycle() -> None:
    """An object is not blamed for referring back to the one that holds what is to blame."""
    parent, child = Plain(), Plain()
    parent.children, child.parent = [child, child], parent
    parent.hook = threading.Lock()
    assert told(parent) == f"args[0].hook: {LOCK}"
    assert told(child) == f"args[0].parent.hook: {LOCK}"
    parent.hook = None
    loop: list[Any] = [parent, threading.Lock()]
    loop.insert(0, loop)
    assert told(loop) == f"args[0][2]: {LOCK}"


def test_many_objects_that_know_their_parent() -> None:
    """Of a thousand objects that all lead to one another, the one with the lock is found."""
    parent = Plain()
    parent.children = [Plain(parent=parent, data=[1]) for _ in range(1000)]
    parent.children[700].data.append(threading.Lock())
    assert told(parent) == f"args[0].children[700].data[1]: {LOCK}"


def test_time_limit_in_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time for cycles is over, the way so far is shown."""
    monkeypatch.setattr(_unpicklable, "_CYCLE_TIME", -1.0)
    parent, child = Plain(), Plain()
    parent.child, child.parent, parent.lock = child, parent, threading.Lock()
    assert told(parent) == f"args[0].child...: {LOCK}"


def test_shared_objects() -> None:
    """Objects that are referred to twice at each of many levels are not looked at twice."""
    shared: Any = [1]
    for _ in range(40):
        shared = [shared, shared]
    assert told(shared, Plain(a=shared, lock=threading.Lock())) == f"args[1].lock: {LOCK}"


@pytest.mark.parametrize("kind", [list, tuple, collections.deque])
def test_long_list(kind: Any) -> None:
    """In a list of 100,000 the bad one is found with few attempts."""
    values = kind([*range(99_999), threading.Lock()])
    sizes = []

    def dump(value: object) -> object:
        sizes.append(len(value) if isinstance(value, collections.abc.Sequence) else 1)
        return ForkingPickler.dumps(value)

    said = _unpicklable.explain({"args": (values,)}, dump, TypeError())
    assert said == f"args[0][99999]: {LOCK}"
    assert len(sizes) < 200
    assert sum(sizes) < 10 * len(values)


def test_long_dict() -> None:
    """In a dict of 100,000 the bad one is found wherever it is."""
    for index in (0, 1, 4711, 65_535, 65_536, 99_999):
        values: dict[int, Any] = dict.fromkeys(range(100_000))
        values[index] = threading.Lock()
        assert told(values) == f"args[0][{index}]: {LOCK}"


def test_nested_too_deeply() -> None:
    """Something that is nested too deeply is said to be, with the beginning of the path."""
    nested: Any = []
    for _ in range(DEEPER_THAN_ANY_LIMIT):
        nested = [nested]
    assert told({"tree": nested}) == (
        "args[0]['tree'][0][0][0][0][0]...: nested too deeply to be pickled"
    )
    assert told(Endless()) == (
        "args[0].next.next.next.next.next.next...: nested too deeply to be pickled"
    )


def test_recursion_of_the_user() -> None:
    """Code of the user that calls itself without end is not called deep nesting."""
    assert told([RecursesForEver()]).startswith("args[0][0]: RecursionError: ")


def test_deep_but_not_too_deep() -> None:
    """A path has an end: it is cut where it would help nobody."""
    nested: Any = threading.Lock()
    for _ in range(30):
        nested = [nested]
    assert told(nested) == f"args[0]{'[0]' * 30}: {LOCK}"
    for _ in range(70):
        nested = [nested]
    assert told(nested) == f"args[0]{'[0]' * 63}...: {LOCK}"


def test_whole_fails_but_no_part() -> None:
    """If each part can be pickled, the error of the whole is all there is to say."""
    said = _unpicklable.explain({"fn": 1, "args": ()}, ForkingPickler.dumps, OSError("full"))
    assert said == "fn, args: OSError: full"
    assert _unpicklable.explain({"args": ()}, ForkingPickler.dumps, OSError()) == "args: OSError"


def test_interrupt() -> None:
    """Ctrl-C ends the search."""

    def dump(value: object) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _unpicklable.explain({"args": ()}, dump, TypeError())


def test_attributes_that_fail() -> None:
    """An object whose attributes cannot be had is told by its reduction."""

    class Model:
        __dict__ = property(lambda self: 1 / 0)

        def __reduce__(self) -> Any:
            return print, (1, [threading.Lock()])

    assert told(Model()) == f"args[0].__reduce__()[1][1][0]: {LOCK}"


def test_nothing_is_kept() -> None:
    """The arguments live no longer than without the search."""
    held = Plain(inner=Plain(lock=threading.Lock()))
    gone = weakref.ref(held)
    gc.disable()
    try:
        assert told(held) == f"args[0].inner.lock: {LOCK}"
        del held
        assert gone() is None
    finally:
        gc.enable()


def test_registered_reducer() -> None:
    """A reducer that was registered with multiprocessing is what counts."""
    ForkingPickler.register(Slots, lambda made: (Plain, (), {"handle": made.first}))
    try:
        made = Slots()
        made.first = threading.Lock()
        assert told(made) == f"args[0].handle: {LOCK}"
    finally:
        del ForkingPickler._extra_reducers[Slots]


def test_path_leads_to_the_culprit() -> None:
    """Where a path is an expression, it gives the object that fails."""
    lock = threading.Lock()
    args = (0, {"a": [Plain(b=Outer(Inner("x", (lock,))))]})
    path, _, _ = told(*args).partition(": ")
    assert eval(path, {"args": args}) is lock
