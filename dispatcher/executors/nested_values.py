"""Replacement of objects inside containers and other objects. Used by executors for futures and Dask collections."""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from dispatcher.errors import INTERRUPTS, InvalidInput

_LEAVES = frozenset({int, float, complex, bool, str, bytes, bytearray, type(None), type(Ellipsis), range, slice})
_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.CodeType)
_OPAQUE_PACKAGES = frozenset({*sys.stdlib_module_names, "dask", "distributed"} - {"types", "__main__"})


class NotReplaceable(InvalidInput):
    """A part can't be rebuilt with what replaces a match in it. Who gave the value adds its name."""


Matches = Callable[[Any], bool]
Maker = Callable[[Any], Any]
Read = Callable[[Any], tuple[list[Any], Maker]]


def replace_nested(value: Any, matches: Matches, by: Maker, *, generator: Maker | None = None) -> Any:
    """Return ``value`` with each matching object in it replaced; the same object if there is no match.

    The search covers lists, tuples, dicts (keys too), sets, deques, partial calls, NumPy arrays of objects, and the
    attributes of dataclasses and other objects. It covers neither code nor objects of the standard library. An object
    that occurs twice is replaced by one object. The originals stay unchanged. An object whose own code raises when it
    is looked into stays as it is; whoever uses or pickles it gets that error.

    Args:
        value: the value to search.
        matches: returns True for objects to replace.
        by: returns the replacement of a match.
        generator: returns the replacement of a generator; by default generators stay.

    Raises:
        NotReplaceable: a part can't be rebuilt: it holds itself and a match, it can't be copied, or a replacement in a
            set isn't hashable.
    """
    return _Walk(matches, by, generator).replace(value)


class _Walk:
    """One search through a value."""

    def __init__(self, matches: Matches, by: Maker, generator: Maker | None) -> None:
        self._matches = matches
        self._by = by
        self._generator = generator
        self._done: dict[int, tuple[Any, Any]] = {}  # by id: the original (so that its id stays in use), the new object
        self._ancestors: set[int] = set()
        self._self_containing: set[int] = set()

    def replace(self, value: Any) -> Any:
        """Return the replacement of ``value``. Works at any depth, since it doesn't recurse."""
        replacement, read = self._visit(value)
        pending = [] if read is None else [self._rebuilding(value, read)]
        while pending:
            try:
                part = pending[-1].send(replacement)
            except StopIteration as end:
                pending.pop()
                replacement = end.value
            else:
                replacement, read = self._visit(part)
                if read is not None:
                    pending.append(self._rebuilding(part, read))
        return replacement

    def _visit(self, value: Any) -> tuple[Any, Read | None]:
        """Return the replacement of a value that isn't searched, or None and the function that takes it apart."""
        kind = type(value)
        if kind in _LEAVES or not _has_class(value):
            return value, None
        if self._matches(value):
            return self._by(value), None
        if kind is types.GeneratorType and self._generator is not None:
            return self._generator(value), None
        read = _reader(value)
        if read is None:
            return value, None
        key = id(value)
        if key in self._done:
            return self._done[key][1], None
        if key in self._ancestors:
            self._self_containing.add(key)
            return value, None
        return None, read

    def _rebuilding(self, value: Any, read: Read) -> Generator[Any, Any, Any]:
        """Yield each part, receive its replacement, and return the replacement of ``value``."""
        key = id(value)
        self._ancestors.add(key)
        try:
            parts, rebuild = read(value)
        except INTERRUPTS:
            raise
        except BaseException:  # the object's own __iter__ or attributes may raise anything
            self._ancestors.discard(key)
            self._done[key] = value, value
            return value
        new = []
        for part in parts:
            new.append((yield part))
        self._ancestors.discard(key)
        rebuilt = self._rebuilt(value, parts, new, rebuild)
        self._done[key] = value, rebuilt
        return rebuilt

    def _rebuilt(self, value: Any, parts: list[Any], new: list[Any], rebuild: Maker) -> Any:
        if all(part is original for part, original in zip(new, parts, strict=True)):
            return value
        shown = type(value).__qualname__
        if id(value) in self._self_containing:
            raise NotReplaceable(f"a {shown} holds itself and a future: gather the future first")
        try:
            return rebuild(new)
        except Exception as error:
            raise NotReplaceable(
                f"a {shown} can't be rebuilt with the results of the futures in it ({error}): gather them first"
            ) from error


def _has_class(value: Any) -> bool:
    """Return True if ``isinstance`` works on an object; its ``__class__`` may raise anything."""
    try:
        value.__class__  # noqa: B018 - a property, or __getattribute__
    except INTERRUPTS:
        raise
    except BaseException:
        return False
    return True


def _reader(value: Any) -> Read | None:
    """Return the function that takes ``value`` apart, into its parts and a function that rebuilds it from others."""
    for kind, read in _READERS.items():
        if isinstance(value, kind):
            return read
    if isinstance(value, _CODE):
        return None
    kind = type(value)
    top = str(kind.__module__).partition(".")[0]
    if top == "numpy":
        return _of_array if kind.__name__ == "ndarray" and value.dtype == object else None
    if top in _OPAQUE_PACKAGES or not (hasattr(value, "__dict__") or _slots(kind)):
        return None
    return _of_object


def _of_dict(value: dict[Any, Any]) -> tuple[list[Any], Maker]:
    def rebuild(new: list[Any]) -> Any:
        made = {} if type(value) is dict else copy.copy(value)
        made.clear()
        half = len(new) // 2
        for key, item in zip(new[:half], new[half:], strict=True):
            made[key] = item
        return made

    return [*value.keys(), *value.values()], rebuild


def _of_proxy(value: types.MappingProxyType[Any, Any]) -> tuple[list[Any], Maker]:
    return [dict(value)], lambda new: types.MappingProxyType(new[0])


def _of_tuple(value: tuple[Any, ...]) -> tuple[list[Any], Maker]:
    return list(value), lambda new: type(value)(*new) if hasattr(value, "_fields") else tuple(new)


def _of_list(value: list[Any]) -> tuple[list[Any], Maker]:
    return list(value), list


def _of_set(value: set[Any] | frozenset[Any]) -> tuple[list[Any], Maker]:
    return list(value), type(value)


def _of_deque(value: deque[Any]) -> tuple[list[Any], Maker]:
    return list(value), lambda new: deque(new, value.maxlen)


def _of_partial(value: functools.partial[Any]) -> tuple[list[Any], Maker]:
    return [value.args, value.keywords], lambda new: functools.partial(value.func, *new[0], **new[1])


def _of_namespace(value: types.SimpleNamespace) -> tuple[list[Any], Maker]:
    return [vars(value)], lambda new: types.SimpleNamespace(**new[0])


def _of_array(value: Any) -> tuple[list[Any], Maker]:
    def rebuild(new: list[Any]) -> Any:
        made = type(value)((len(new),), dtype=object)
        for index, item in enumerate(new):
            made[index] = item  # item by item: an array would take lists apart
        return made.reshape(value.shape)

    return list(value.flat), rebuild


def _of_object(value: Any) -> tuple[list[Any], Maker]:
    own = dict(getattr(value, "__dict__", ()))
    slots = [name for name in _slots(type(value)) if hasattr(value, name)]

    def rebuild(new: list[Any]) -> Any:
        made = copy.copy(value)
        for name, item in zip(own, new, strict=False):
            made.__dict__[name] = item
        for name, item in zip(slots, new[len(own) :], strict=True):
            object.__setattr__(made, name, item)
        return made

    return [*own.values(), *(getattr(value, name) for name in slots)], rebuild


def _slots(kind: type) -> list[str]:
    return list(_all_slots(kind))


def _all_slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name.startswith("__") and not name.endswith("__"):
                yield f"_{base.__name__.lstrip('_')}{name}"
            elif name not in {"__dict__", "__weakref__"}:
                yield name


_READERS: dict[type, Read] = {
    list: _of_list,
    tuple: _of_tuple,
    dict: _of_dict,
    set: _of_set,
    frozenset: _of_set,
    deque: _of_deque,
    functools.partial: _of_partial,
    types.MappingProxyType: _of_proxy,
    types.SimpleNamespace: _of_namespace,
}
