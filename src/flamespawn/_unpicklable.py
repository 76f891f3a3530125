"""Finding out which part of some arguments cannot be pickled, and saying why."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import pickle
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

# A path that is longer helps nobody.
_MAX_DEPTH = 64

# What is shown of something that is nested too deeply: the other levels are like these.
_SHOWN_DEPTH = 8

# Seconds to spend among objects that refer to each other: each of them fails, and pickles all.
_CYCLE_TIME = 5.0

# What is inside an object, and how to get from the object to the item at an index.
_Children = tuple[Sequence[object], Callable[[int], str]]
_NONE: _Children = ((), str)

# Attributes that reducers pass to a constructor. More than these are in __dict__.
_ATTRIBUTES: tuple[tuple[type, Sequence[str]], ...] = (
    (object, ("__class__",)),
    (functools.partial, ("func", "args", "keywords")),
    (types.MethodType, ("__self__",)),
)


def _text(function: Callable[[Any], str], value: object) -> str:
    """Return what `str` or `repr` says; they are the user's code, which may fail."""
    try:
        return function(value)
    except Exception:  # noqa: BLE001 - what is being explained is another failure
        return f"<{type(value).__qualname__} object>"


def _short(value: object) -> str:
    text = _text(repr, value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line of a terminal


def _of_dict(value: dict[object, object]) -> _Children:
    flat = [part for item in value.items() for part in item]

    def name(index: int) -> str:
        return f"[{_short(flat[index - 1])}]" if index % 2 else f" key {_short(flat[index])}"

    return flat, name


def _of_set(value: set[object]) -> _Children:
    elements = list(value)
    return elements, lambda index: f" element {_short(elements[index])}"


def _of_state(state: Any) -> list[tuple[str, object]]:
    match state:
        case dict():
            return [(f".{name}", item) for name, item in state.items()]
        case (None | dict(), dict()):  # with __slots__
            return [*_of_state(state[0] or {}), *_of_state(state[1])]
        case list() | tuple():
            return [(f".__reduce__()[2][{index}]", item) for index, item in enumerate(state)]
    return [(".__reduce__()[2]", state)]


def _attribute(owner: Any, value: object) -> str | None:
    """Return the attribute of *owner* that is *value*, if one of those that are safe to get is."""
    kind = type(owner)
    names = [name for known, names in _ATTRIBUTES if issubclass(kind, known) for name in names]
    names += getattr(kind, "__dataclass_fields__", ())
    names += getattr(kind, "_fields", ()) if issubclass(kind, tuple) else ()
    with contextlib.suppress(Exception):  # the owner's own __getattr__
        items = [(name, getattr(owner, name, None)) for name in names]
        items += getattr(owner, "__dict__", {}).items()
        return next((f".{name}" for name, item in items if item is value), None)
    return None


def _of_object(value: Any) -> _Children:
    """Return what the pickler would pickle in place of *value*."""
    # Not isinstance(), which runs code of the value.
    reducer = ForkingPickler(io.BytesIO()).dispatch_table.get(type(value))
    if reducer is None and issubclass(type(value), type):
        return _NONE
    reduced: Any = reducer(value) if reducer else value.__reduce_ex__(5)
    if isinstance(reduced, str):
        return _NONE
    given: list[Any] = [*reduced, None, None, None, None]
    function, args, state, items, pairs, setter = given[:6]
    found = [
        (".__reduce__()[0]", function),
        *((f".__reduce__()[1][{index}]", argument) for index, argument in enumerate(args)),
        ("", list(items or ())),
        ("", dict(pairs or ())),
        *_of_state(state),
        (".__reduce__()[5]", setter),
    ]
    return [child for _, child in found], lambda index: (
        _attribute(value, found[index][1]) or found[index][0]
    )


# Only for these very classes: the pickler asks the subclasses for a reduction, as all others.
_KINDS: dict[type, Callable[[Any], _Children]] = {
    list: lambda value: (value, "[{}]".format),
    tuple: lambda value: (value, "[{}]".format),
    dict: _of_dict,
    set: _of_set,
    frozenset: _of_set,
    types.FunctionType: lambda _: _NONE,
}


def _children(value: object) -> _Children:
    try:
        return _KINDS.get(type(value), _of_object)(value)
    except Exception:  # noqa: BLE001 - then this is what keeps it from being pickled
        return _NONE


class _Failure(NamedTuple):
    steps: tuple[str, ...]
    value: object
    error: BaseException


class _Search:
    """
    The way down to what cannot be pickled.

    Attributes:
        deepest: the failure that is to blame, or the one furthest down if that was not found.
        found: which of them it is.
    """

    def __init__(self, dump: Callable[[object], object], whole: _Failure) -> None:
        self._dump = dump
        # The objects that have failed, by id; they have to live for that to mean anything.
        self._seen: dict[int, object] = {}
        self._end = math.inf
        self.deepest = whole
        self.found = False

    def failing(self, values: Sequence[object]) -> Iterator[tuple[int, Exception]]:
        """
        Yield the index and the error of each new value that cannot be pickled.

        Many are tried at once: as many again with each success, half as many with each failure.
        """
        position, size = 0, 1
        while position < len(values):
            size = min(size, len(values) - position)
            some = values[position : position + size]
            new = [value for value in some if id(value) not in self._seen]
            error = self._error_of(new[0] if len(new) == 1 else new)
            if error is None:
                position, size = position + size, size * 2
            elif size > 1:
                size //= 2
            else:
                yield position, error
                position += 1

    def _error_of(self, value: object) -> Exception | None:
        if time.monotonic() > self._end:
            raise TimeoutError
        try:
            self._dump(value)
        except Exception as error:  # noqa: BLE001 - pickling runs the user's code
            # Its traceback leads back here, and would keep all the arguments alive.
            return error.with_traceback(None)
        return None

    def descend(self, failure: _Failure) -> bool:
        """
        Look for what is to blame for a failure, depth first.

        Returns:
            Whether it was found. An object that fails only because it refers back to another on
            the way to it is not to blame.
        """
        self._seen[id(failure.value)] = failure.value
        if len(failure.steps) >= len(self.deepest.steps):
            self.deepest = failure
        if len(failure.steps) > _MAX_DEPTH:
            return False
        values, name = _children(failure.value)
        for index, error in self.failing(values):
            if self.descend(_Failure((*failure.steps, name(index)), values[index], error)):
                return True
        if any(id(value) in self._seen for value in values):
            self._end = min(self._end, time.monotonic() + _CYCLE_TIME)
            return False
        self.deepest, self.found = failure, True
        return True


def _trouble_with_name(value: Any) -> str | None:
    """Return why a function or class is not found by its name, None if it is."""
    kind = "class" if issubclass(type(value), type) else "function"
    name, full_name = value.__qualname__, f"{value.__module__}.{value.__qualname__}"
    if name.endswith("<lambda>"):
        return f"cannot pickle lambda '{name if '<locals>' in name else full_name}'"
    if "<locals>" in name:
        return f"cannot pickle local {kind} '{name}'"
    found: object = sys.modules.get(value.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is value:
        return None
    trouble = "it is not what its module has" if found is not None else "its module has nothing"
    return f"cannot pickle {kind} '{full_name}': {trouble} under this name"


def _reason(value: object, error: BaseException) -> str:
    if isinstance(error, RecursionError) and _children(value)[0]:
        return "nested too deeply to be pickled"
    if isinstance(error, pickle.PicklingError | AttributeError):
        # Most objects have no name, and the attributes of some modules and metaclasses fail.
        with contextlib.suppress(Exception):
            if trouble := _trouble_with_name(value):
                return trouble
    text = _text(str, error)
    if text and (isinstance(error, pickle.PickleError) or "pickl" in text.lower()):
        return text
    return ": ".join(filter(None, (type(error).__qualname__, text)))


def explain(
    parts: dict[str, object], dump: Callable[[object], object], error: BaseException
) -> str:
    """
    Return what cannot be pickled, as `path: reason`. Raises nothing of its own.

    Args:
        parts: the named values in order, such as `{"fn": fn, "args": args}`.
        dump: pickles a value the way the real pickling did, and raises as it did.
        error: what the real pickling raised: the reason when nothing smaller fails.

    A path that ends with `...` leads to something that fails because of what is further down.
    """
    names, values = list(parts), list(parts.values())
    search = _Search(dump, _Failure((", ".join(names),), values, error))
    with contextlib.suppress(Exception):  # the user waits for the first error, not for this one
        for index, part_error in search.failing(values):
            search.descend(_Failure((names[index],), values[index], part_error))
            break
        else:
            search.found = True
    steps, value, error = search.deepest
    shown = steps[:_SHOWN_DEPTH] if isinstance(error, RecursionError) else steps
    end = "" if search.found and shown == steps else "..."
    return f"{''.join(shown)}{end}: {_reason(value, error)}"
