"""The search for the part of an object that can't be pickled, and where it is used.

Called by :mod:`dispatcher.serialization.pickles` after pickling failed. It pickles part by part, which runs code of the
user's. So the number of parts and the time are limited, and an exception only makes the answer less exact.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dispatcher.code.locations import is_installed
from dispatcher.errors import INTERRUPTS
from dispatcher.support.escaping import article
from dispatcher.support.foreign_objects import describe_exception, repr_of, text_of

_MAX_DEPTH = 25
_MAX_PARTS = 10_000
_SEARCH_SECONDS = 5.0  # no further part is tried afterwards

#: Description of a part (``global 'lock'``), where it is used (``function g at file:line``, or ``""``), and the part.
Part = tuple[str, str, Any]

#: Pickles an object, and calls the function given to it from time to time; that one's exceptions pass through.
Dumps = Callable[[Any, Callable[[], None]], object]


class SearchLimitReached(Exception):
    """The search has tried too many parts or taken too long."""


def explain(obj: Any, subject: str, problem: BaseException, *, dumps: Dumps, each: str = "") -> str:
    """Return a sentence that names the part of ``obj`` that can't be pickled, and where it is used.

    Args:
        obj: the object.
        subject: the object's name.
        problem: the exception that pickling raised.
        dumps: pickles a part.
        each: the name of an item of ``obj``, a mapping.
    """
    search = _Search(dumps, each)
    if is_too_deep(problem):
        deep = search.too_deep(obj)
        return f"{subject} can't be sent: {deep} is too deeply nested; flatten it, or pass a file's address"
    trail = search.trail(obj)
    reason = text_of(problem) if type(problem) is TypeError else describe_exception(problem)
    if not trail:
        return f"{subject} can't be sent: {'an unknown part of it: ' * search.gave_up}{reason}"
    place = next((place for _, place, _ in reversed(trail) if place), "")
    start = max((i for i, (_, at, _) in enumerate(trail) if at), default=0)
    trail = trail[
        : 1 + next((i for i, (_, _, part) in enumerate(trail) if i >= start and _is_foreign(part)), len(trail))
    ]
    named = ", in it ".join(name for name, _, _ in trail[start:])
    where = f" in {place}" if place else ""
    verb = "uses" if place else "holds"
    return f"{subject} can't be sent: it {verb} {named} ({article(_type_name(trail[-1][2]))}){where}: {reason}"


def is_too_deep(problem: BaseException) -> bool:
    """Return True if pickling ended at the interpreter's limit of nested calls."""
    return isinstance(problem, RecursionError) or isinstance(problem.__cause__, RecursionError)


class _Search:
    """One search. ``gave_up``: it ended early."""

    def __init__(self, dumps: Dumps, each: str) -> None:
        self._dumps = dumps
        self._each = each
        self._left = _MAX_PARTS
        self._end = time.monotonic() + _SEARCH_SECONDS
        self.gave_up = False

    def trail(self, obj: Any) -> list[Part]:
        """Return the failing parts, from the outermost to the innermost."""
        trail: list[Part] = []
        visited = {id(obj)}
        while len(trail) < _MAX_DEPTH:
            part = next(self._failing(obj, visited, self._each if not trail else ""), None)
            if part is None:
                break
            trail.append(part)
            obj = part[2]
            visited.add(id(obj))
        return trail

    def too_deep(self, obj: Any) -> str:
        """Return the name of the part of ``obj`` that is too deeply nested."""
        if not self._each:
            return "it"
        return next((name for name, _, _ in self._failing(obj, {id(obj)}, self._each)), "it")

    def _failing(self, obj: Any, visited: set[int], each: str) -> Iterator[Part]:
        try:
            for part in _parts(obj, each):
                if id(part[2]) not in visited and not self._is_picklable(part[2]):
                    yield part
        except INTERRUPTS:
            raise
        except BaseException as problem:  # the object's own methods may raise anything
            self.gave_up = self.gave_up or not isinstance(problem, GeneratorExit)

    def _is_picklable(self, obj: Any) -> bool:
        self._left -= 1
        self._check()
        try:
            self._dumps(obj, self._check)
        except (SearchLimitReached, *INTERRUPTS):
            raise
        except BaseException:  # the object's own methods may raise anything
            return False
        return True

    def _check(self) -> None:
        if self._left < 0 or time.monotonic() > self._end:
            raise SearchLimitReached


def _type_name(obj: Any) -> str:
    kind = type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _parts(obj: Any, each: str) -> Iterator[Part]:
    kind = type(obj)  # isinstance() would also look at the object's own __class__
    if issubclass(kind, Mapping):
        yield from _of_mapping(obj, each)
    for kinds, parts in _KINDS:
        if issubclass(kind, kinds):
            yield from parts(obj)
    yield from _of_attributes(obj)


def _of_mapping(mapping: Mapping[Any, Any], each: str) -> Iterator[Part]:
    for key in mapping:
        shown = repr_of(key)
        yield f"key {shown}", "", key
        yield f"{each} {shown}" if each else f"[{shown}]", "", mapping[key]


def _of_items(items: Iterable[Any]) -> Iterator[Part]:
    for index, value in enumerate(items):
        yield f"item {index}", "", value


def _of_method(method: types.MethodType) -> Iterator[Part]:
    yield "its object", "", method.__self__
    yield "its function", "", method.__func__


def _of_wrapper(wrapper: staticmethod[..., Any] | classmethod[Any, ..., Any]) -> Iterator[Part]:
    yield "its function", "", wrapper.__func__


def _of_property(attribute: property) -> Iterator[Part]:
    for name in ("fget", "fset", "fdel"):
        yield f"its {name}", "", getattr(attribute, name)


def _of_exception(error: BaseException) -> Iterator[Part]:
    yield "its arguments", "", error.args


def _of_attributes(obj: Any) -> Iterator[Part]:
    """Yield the attributes as they are stored, without computing any."""
    kind = type(obj)
    owner = obj.__qualname__ if issubclass(kind, type) else kind.__qualname__
    try:
        attributes = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        attributes = {}
    for name, value in list(attributes.items()):
        if name not in {"__dict__", "__weakref__", "__doc__", "__builtins__"}:
            yield f"attribute {name!r} of {owner}", "", value
    for base in kind.__mro__:
        for name, slot in list(vars(base).items()):
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    value = slot.__get__(obj)
                except AttributeError:  # an empty slot
                    continue
                yield f"attribute {name!r} of {owner}", "", value


def _of_function(function: types.FunctionType) -> Iterator[Part]:
    code = function.__code__
    place = (
        "" if _is_foreign(function) else f"function {function.__qualname__} at {code.co_filename}:{code.co_firstlineno}"
    )
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"variable {name!r} of the function around it", place, cell.cell_contents
        except ValueError:  # an empty cell
            continue
    for name in _names(code):
        if name in function.__globals__:
            yield f"global {name!r}", place, function.__globals__[name]
    for value in function.__defaults__ or ():
        yield "a default value", place, value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"the default of {name!r}", place, value


def _is_foreign(obj: Any) -> bool:
    """Return True for a function, or an object of a class, that is installed: a person looks for what holds it."""
    if issubclass(type(obj), types.FunctionType):
        return is_installed("", Path(obj.__code__.co_filename))
    module = sys.modules.get(type(obj).__module__)
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and is_installed(type(obj).__module__, Path(file))


def _names(code: types.CodeType) -> list[str]:
    """Return the names that a function, or one inside it, may look up in its globals."""
    names: list[str] = []
    pending = [code]
    while pending:
        current = pending.pop()
        names += current.co_names
        pending += [constant for constant in current.co_consts if isinstance(constant, types.CodeType)]
    return list(dict.fromkeys(names))


_KINDS: tuple[tuple[Any, Callable[[Any], Iterator[Part]]], ...] = (
    (types.FunctionType, _of_function),
    (types.MethodType, _of_method),
    ((staticmethod, classmethod), _of_wrapper),
    (property, _of_property),
    ((list, tuple, set, frozenset), _of_items),
    (BaseException, _of_exception),
)
