"""Why an object can't be pickled: finds the part to blame, and where it is used, by trying the parts one by one.

Called by :mod:`dispatcher.payload.pickles` after a pickle failed; its speed doesn't matter.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dispatcher.escaping import article

_DEEPEST = 25

#: How a part is called (``global 'lock'``), and where it is used (``function g at file:line``), or ``""``.
Part = tuple[str, str, Any]


def explain(obj: Any, what: str, problem: BaseException, *, dumps: Callable[[Any], object]) -> str:
    """One sentence that names what can't be pickled in ``obj``, called ``what``, and where it is used."""
    trail = _search(obj, dumps)
    reason = f"{type(problem).__name__}: {problem}" if not isinstance(problem, TypeError) else str(problem)
    if not trail:
        return f"{what} can't be sent: {reason}"
    place = next((place for _, place, _ in reversed(trail) if place), "")
    start = max((i for i, (_, at, _) in enumerate(trail) if at), default=0)
    named = ", in it ".join(name for name, _, _ in trail[start:])
    where = f" in {place}" if place else ""
    verb = "uses" if place else "holds"
    return f"{what} can't be sent: it {verb} {named} ({article(_type_name(trail[-1][2]))}){where}: {reason}"


def _type_name(obj: Any) -> str:
    kind = type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _search(obj: Any, dumps: Callable[[Any], object]) -> list[Part]:
    """Parts from the outermost to the innermost that fails by itself."""
    trail: list[Part] = []
    seen = {id(obj)}
    while len(trail) < _DEEPEST:
        for part in _parts(obj):
            if id(part[2]) not in seen and not _travels(part[2], dumps):
                break
        else:
            return trail
        trail.append(part)
        obj = part[2]
        seen.add(id(obj))
    return trail


def _travels(obj: Any, dumps: Callable[[Any], object]) -> bool:
    try:
        dumps(obj)
    except Exception:
        return False
    return True


def _parts(obj: Any) -> Iterator[Part]:
    match obj:
        case types.FunctionType():
            yield from _of_function(obj)
        case types.MethodType():
            yield "its object", "", obj.__self__
            yield "its function", "", obj.__func__
        case staticmethod() | classmethod():
            yield "its function", "", obj.__func__
        case property():
            for name in ("fget", "fset", "fdel"):
                yield f"its {name}", "", getattr(obj, name)
        case Mapping():
            for key, value in list(obj.items()):
                yield f"key {key!r}", "", key
                yield f"[{key!r}]", "", value
        case list() | tuple() | set() | frozenset():
            for index, value in enumerate(obj):
                yield f"item {index}", "", value
    yield from _of_attributes(obj)


def _of_attributes(obj: Any) -> Iterator[Part]:
    names = list(getattr(obj, "__dict__", ()))
    for kind in type(obj).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    is_class = isinstance(obj, type)
    if isinstance(obj, BaseException):
        yield "its arguments", "", obj.args
    for name in names:
        if name in {"__dict__", "__weakref__", "__doc__", "__builtins__"}:
            continue
        found = obj.__dict__.get(name) if is_class else getattr(obj, name, None)
        label = f"attribute {name!r} of {obj.__qualname__ if is_class else type(obj).__qualname__}"
        yield label, "", found


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
    found = list(code.co_names)
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            found += _names(one)
    return list(dict.fromkeys(found))
