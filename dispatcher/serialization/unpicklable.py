"""Why an object can't be pickled: finds the part to blame, and where it is used, by trying the parts one by one.

Called by :mod:`dispatcher.serialization.pickles` after a pickle failed. The search runs code of the user's: it ends
after so many parts and seconds, and whatever is raised in it only makes the answer less exact.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dispatcher.errors import INTERRUPTS
from dispatcher.support.escaping import article
from dispatcher.support.foreign_objects import describe_exception, repr_of, text_of

_DEEPEST = 25
_MOST = 10_000  # parts that are tried
_SECONDS = 5.0  # after which no further part is tried

#: How a part is called (``global 'lock'``), and where it is used (``function g at file:line``), or ``""``.
Part = tuple[str, str, Any]

#: Pickles an object, and calls the function given to it now and then; what that raises passes through.
Dumps = Callable[[Any, Callable[[], None]], object]


class Over(Exception):
    """The search has taken long enough."""


def explain(obj: Any, what: str, problem: BaseException, *, dumps: Dumps, each: str = "") -> str:
    """One sentence that names what can't be pickled in ``obj``, called ``what``, and where it is used.

    Args:
        obj: the object.
        what: its name.
        problem: what pickling it raised.
        dumps: pickles a part.
        each: what an item of ``obj``, a mapping, is called.
    """
    search = _Search(dumps, each)
    if is_too_deep(problem):
        return (
            f"{what} can't be sent: {search.too_deep(obj)} is too deeply nested; flatten it, or pass a file's address"
        )
    trail = search.trail(obj)
    reason = text_of(problem) if type(problem) is TypeError else describe_exception(problem)
    if not trail:
        return f"{what} can't be sent: {'an unknown piece of it: ' * search.over}{reason}"
    place = next((place for _, place, _ in reversed(trail) if place), "")
    start = max((i for i, (_, at, _) in enumerate(trail) if at), default=0)
    named = ", in it ".join(name for name, _, _ in trail[start:])
    where = f" in {place}" if place else ""
    verb = "uses" if place else "holds"
    return f"{what} can't be sent: it {verb} {named} ({article(_type_name(trail[-1][2]))}){where}: {reason}"


def is_too_deep(problem: BaseException) -> bool:
    """Return True if pickling ended at the interpreter's limit of nested calls."""
    return isinstance(problem, RecursionError) or isinstance(problem.__cause__, RecursionError)


class _Search:
    """One search. ``over``: it was given up."""

    def __init__(self, dumps: Dumps, each: str) -> None:
        self._dumps = dumps
        self._each = each
        self._left = _MOST
        self._end = time.monotonic() + _SECONDS
        self.over = False

    def trail(self, obj: Any) -> list[Part]:
        """Parts from the outermost to the innermost that fails by itself."""
        trail: list[Part] = []
        seen = {id(obj)}
        while len(trail) < _DEEPEST:
            part = next(self._failing(obj, seen, self._each if not trail else ""), None)
            if part is None:
                break
            trail.append(part)
            obj = part[2]
            seen.add(id(obj))
        return trail

    def too_deep(self, obj: Any) -> str:
        """Say what of ``obj`` can't be sent for its depth."""
        if not self._each:
            return "it"
        return next((name for name, _, _ in self._failing(obj, {id(obj)}, self._each)), "it")

    def _failing(self, obj: Any, seen: set[int], each: str) -> Iterator[Part]:
        try:
            for part in _parts(obj, each):
                if id(part[2]) not in seen and not self._travels(part[2]):
                    yield part
        except INTERRUPTS:
            raise
        except BaseException as problem:  # whatever the object's own methods raise
            self.over = self.over or not isinstance(problem, GeneratorExit)

    def _travels(self, obj: Any) -> bool:
        self._left -= 1
        self._check()
        try:
            self._dumps(obj, self._check)
        except (Over, *INTERRUPTS):
            raise
        except BaseException:  # whatever the object's own methods raise
            return False
        return True

    def _check(self) -> None:
        if self._left < 0 or time.monotonic() > self._end:
            raise Over


def _type_name(obj: Any) -> str:
    kind = type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _parts(obj: Any, each: str) -> Iterator[Part]:
    kind = type(obj)  # isinstance() would ask the object itself, too
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


def _of_property(one: property) -> Iterator[Part]:
    for name in ("fget", "fset", "fdel"):
        yield f"its {name}", "", getattr(one, name)


def _of_exception(error: BaseException) -> Iterator[Part]:
    yield "its arguments", "", error.args


def _of_attributes(obj: Any) -> Iterator[Part]:
    """Attributes as they are stored: none is computed."""
    kind = type(obj)
    owner = obj.__qualname__ if issubclass(kind, type) else kind.__qualname__
    try:
        held = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        held = {}
    for name, value in list(held.items()):
        if name not in {"__dict__", "__weakref__", "__doc__", "__builtins__"}:
            yield f"attribute {name!r} of {owner}", "", value
    for base in kind.__mro__:
        for name, slot in list(vars(base).items()):
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    value = slot.__get__(obj)
                except AttributeError:  # an empty one
                    continue
                yield f"attribute {name!r} of {owner}", "", value


def _of_function(function: types.FunctionType) -> Iterator[Part]:
    code = function.__code__
    place = f"function {function.__qualname__} at {code.co_filename}:{code.co_firstlineno}"
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


def _names(code: types.CodeType) -> list[str]:
    """Names that a function, or one inside it, may look up in its globals."""
    found: list[str] = []
    todo = [code]
    while todo:
        one = todo.pop()
        found += one.co_names
        todo += [constant for constant in one.co_consts if isinstance(constant, types.CodeType)]
    return list(dict.fromkeys(found))


_KINDS: tuple[tuple[Any, Callable[[Any], Iterator[Part]]], ...] = (
    (types.FunctionType, _of_function),
    (types.MethodType, _of_method),
    ((staticmethod, classmethod), _of_wrapper),
    (property, _of_property),
    ((list, tuple, set, frozenset), _of_items),
    (BaseException, _of_exception),
)
