"""Things inside containers and objects. Used by executors for futures and Dask collections."""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from dispatcher.errors import InvalidInput

_LEAVES = frozenset({int, float, complex, bool, str, bytes, bytearray, type(None), type(Ellipsis), range, slice})
_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.CodeType)
_NOT_OURS = frozenset({*sys.stdlib_module_names, "dask", "distributed"} - {"types", "__main__"})

Matches = Callable[[Any], bool]
Maker = Callable[[Any], Any]
Read = Callable[[Any], tuple[list[Any], Maker]]


def replaced(value: Any, matches: Matches, by: Maker, *, generator: Maker | None = None) -> Any:
    """``value`` with every match in it replaced; the same object if there is none.

    It looks into lists, tuples, dicts (keys too), sets, deques, partial calls, NumPy arrays of objects, dataclasses and
    other objects by their attributes; not into code, nor into objects of the standard library. What occurs twice is
    replaced by one object. Originals stay as they are.

    Args:
        value: where to look.
        matches: what to replace.
        by: what to put in its place.
        generator: told each generator, gives what to put in its place; by default they stay.

    Raises:
        InvalidInput: something can't be rebuilt: it holds itself and a match, it can't be copied, or what comes into a
            set can't be in one.
    """
    return _Walk(matches, by, generator).of(value)


class _Walk:
    """One look through a value."""

    def __init__(self, matches: Matches, by: Maker, generator: Maker | None) -> None:
        self._matches = matches
        self._by = by
        self._generator = generator
        self._done: dict[int, tuple[Any, Any]] = {}  # by id: the original, which keeps its id its own, and the new one
        self._above: set[int] = set()
        self._in_themselves: set[int] = set()

    def of(self, value: Any) -> Any:
        """The value that comes in the place of ``value``, however deep it is."""
        answer, read = self._looked(value)
        under_way = [] if read is None else [self._parts(value, read)]
        while under_way:
            try:
                part = under_way[-1].send(answer)
            except StopIteration as end:
                under_way.pop()
                answer = end.value
            else:
                answer, read = self._looked(part)
                if read is not None:
                    under_way.append(self._parts(part, read))
        return answer

    def _looked(self, value: Any) -> tuple[Any, Read | None]:
        """Return what comes in the place of a value that isn't looked into; else None, and what takes it apart."""
        kind = type(value)
        if kind in _LEAVES:
            return value, None
        if self._matches(value):
            return self._by(value), None
        if kind is types.GeneratorType and self._generator is not None:
            return self._generator(value), None
        read = _reader(value)
        if read is None:
            return value, None
        here = id(value)
        if here in self._done:
            return self._done[here][1], None
        if here in self._above:
            self._in_themselves.add(here)
            return value, None
        return None, read

    def _parts(self, value: Any, read: Read) -> Generator[Any, Any, Any]:
        """Gives each part, is sent what comes in its place, and returns what comes in the place of ``value``."""
        here = id(value)
        self._above.add(here)
        parts, rebuild = read(value)
        new = []
        for part in parts:
            new.append((yield part))
        self._above.discard(here)
        made = self._rebuilt(value, parts, new, rebuild)
        self._done[here] = value, made
        return made

    def _rebuilt(self, value: Any, parts: list[Any], new: list[Any], rebuild: Maker) -> Any:
        if all(one is other for one, other in zip(new, parts, strict=True)):
            return value
        shown = type(value).__qualname__
        if id(value) in self._in_themselves:
            raise InvalidInput(f"a {shown} holds itself and a future: gather the future first")
        try:
            return rebuild(new)
        except Exception as error:
            raise InvalidInput(
                f"a {shown} can't be made anew with the results of the futures in it ({error}): gather them first"
            ) from error


def _reader(value: Any) -> Read | None:
    """Return what takes ``value`` apart: its parts, and a function that makes it anew of others."""
    for kind, read in _READERS.items():
        if isinstance(value, kind):
            return read
    if isinstance(value, _CODE):
        return None
    kind = type(value)
    top = str(kind.__module__).partition(".")[0]
    if top == "numpy":
        return _of_array if kind.__name__ == "ndarray" and value.dtype == object else None
    if top in _NOT_OURS or not (hasattr(value, "__dict__") or _slots(kind)):
        return None
    return _of_object


def _of_dict(value: dict[Any, Any]) -> tuple[list[Any], Maker]:
    def rebuild(new: list[Any]) -> Any:
        made = {} if type(value) is dict else copy.copy(value)
        made.clear()
        half = len(new) // 2
        for key, one in zip(new[:half], new[half:], strict=True):
            made[key] = one
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
        for place, one in enumerate(new):
            made[place] = one  # one by one: an array takes lists apart
        return made.reshape(value.shape)

    return list(value.flat), rebuild


def _of_object(value: Any) -> tuple[list[Any], Maker]:
    own = dict(getattr(value, "__dict__", ()))
    slots = [name for name in _slots(type(value)) if hasattr(value, name)]

    def rebuild(new: list[Any]) -> Any:
        made = copy.copy(value)
        for name, one in zip(own, new, strict=False):
            made.__dict__[name] = one
        for name, one in zip(slots, new[len(own) :], strict=True):
            object.__setattr__(made, name, one)
        return made

    return [*own.values(), *(getattr(value, name) for name in slots)], rebuild


def _slots(kind: type) -> list[str]:
    return list(_all_slots(kind))


def _all_slots(kind: type) -> Iterator[str]:
    for one in kind.__mro__:
        slots = one.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name.startswith("__") and not name.endswith("__"):
                yield f"_{one.__name__.lstrip('_')}{name}"
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
