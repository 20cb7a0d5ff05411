"""Reuse of a flow's pickle from one submit to the next, as long as nothing that it is made of has changed.

For the Redis storage, which needs a flow's pickle at each submit. Only code, plain immutable values and what travels by
reference can be compared by identity. A list, a flow's environment, a function of the user's own can change inside
while it stays the same object: a flow that uses one is pickled each time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from dispatcher.code.patterns import Patterns
from dispatcher.errors import InvalidFlow
from dispatcher.flows.flow import Flow
from dispatcher.runs.options import Options
from dispatcher.serialization import by_value
from dispatcher.serialization.pickles import pack
from dispatcher.support import signatures

#: Most bytes of a pickle that is kept for the next submit.
_MAX_PICKLE_BYTES = 2**20

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, Options, Patterns})
_ABSENT = object()

#: What cloudpickle takes from a function's module, whether or not the function's code names it.
_MODULE_ATTRIBUTES = ("__package__", "__name__", "__path__", "__file__")

#: What cloudpickle takes from a function beside its code, its globals and its closure.
_FUNCTION_ATTRIBUTES = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__")


class NotComparable(Exception):
    """An object may change inside, or travels by value: its identity doesn't tell whether its pickle is the same."""


class FlowCache:
    """The pickle of the flow that was packed last, and the objects that it depends on."""

    def __init__(self) -> None:
        self._last: tuple[Flow[..., Any], tuple[Any, ...], bytes] | None = None

    def pack(self, flow: Flow[..., Any]) -> bytes:
        """Return the flow's pickle as it is now.

        Raises:
            InvalidFlow: the flow can't travel; names the object and where it is used.
        """
        before, last = dependencies(flow), self._last
        if before is not None and last is not None and last[0] is flow and unchanged(last[1], before):
            return last[2]
        data = pack(flow, subject=f"flow {flow.name!r}", error=InvalidFlow)
        after = dependencies(flow)  # another thread may have changed something meanwhile
        if before is not None and after is not None and unchanged(before, after) and len(data) <= _MAX_PICKLE_BYTES:
            self._last = flow, before, data
        return data


#: The cache of this process.
flow_cache = FlowCache()


def dependencies(flow: Flow[..., Any]) -> tuple[Any, ...] | None:
    """Return all objects that the flow's pickle is made of; None if one of them isn't comparable by identity.

    The pickle stays the same as long as each of them is the same object (:func:`unchanged`).
    """
    try:
        return tuple(_of_flow(flow))
    except NotComparable:
        return None


def unchanged(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """Return True if two results of :func:`dependencies` hold the same objects."""
    return len(before) == len(after) and all(map(is_, before, after))


def _of_flow(flow: Flow[..., Any]) -> Iterator[Any]:
    fn = flow.fn
    name = signatures.by_reference(flow) if type(flow) is Flow else None
    if name is not None and not _travels(flow.__module__):
        module = sys.modules[flow.__module__]  # all that the pickle names, beside the module's file and versions
        yield from (sys.intern(name), module, module.__name__, getattr(module, "__file__", None))
        return
    if type(fn) is not FunctionType or fn.__dict__:
        raise NotComparable
    if fn.__module__ != "__main__" and not _travels(fn.__module__):
        raise NotComparable  # it has no name in its module, which travels by reference
    yield from _of_value(type(flow))
    for name, value in flow.__dict__.items():
        yield name
        if value is fn:
            yield fn
        elif name == "__annotations__":
            yield from _of_items(value)
        else:
            yield from _of_value(value)
    yield fn.__code__
    yield from _of_items(fn.__annotations__)
    yield from _of_items(fn.__kwdefaults__ or {})
    for name in _FUNCTION_ATTRIBUTES:
        yield from _of_value(getattr(fn, name))
    for cell in fn.__closure__ or ():
        yield from _of_value(_content(cell))
    yield from _of_globals(fn)


def _of_globals(fn: FunctionType) -> Iterator[Any]:
    namespace = fn.__globals__
    yield namespace
    for name in (*_names(fn.__code__), *_MODULE_ATTRIBUTES):
        value = namespace.get(name, _ABSENT)
        if value is _ABSENT:
            yield _ABSENT
        else:
            yield from _of_value(value)


def _names(code: CodeType) -> Iterator[str]:
    """Yield every name that ``code``, or code within it, may look up among its globals, and some others."""
    yield from code.co_names
    for constant in code.co_consts:
        if type(constant) is CodeType:
            yield from _names(constant)


def _of_items(items: Mapping[str, Any]) -> Iterator[Any]:
    for name, value in items.items():
        yield name
        yield from _of_value(value)


def _of_value(value: Any) -> Iterable[Any]:
    """Return the objects whose identity determines the bytes in which ``value`` travels.

    Raises:
        NotComparable: there are no such objects.
    """
    kind = type(value)
    if kind in _ATOMS:
        return (value,)
    if kind is tuple:
        return (value, *(part for item in value for part in _of_value(item)))
    if kind is ModuleType and isinstance(value, ModuleType):
        # Of packages, cloudpickle also sends the names of those submodules that are imported by now.
        if sys.modules.get(value.__name__) is value and not hasattr(value, "__path__") and not _travels(value.__name__):
            return (value, value.__name__)
    elif kind in {FunctionType, BuiltinFunctionType} or isinstance(value, type):
        name = signatures.importable_name(value)
        if name is not None and not _travels(value.__module__):
            return (value, sys.intern(name))
    raise NotComparable


def _travels(module: str) -> bool:
    """Return True if the definitions of a module travel by value."""
    return module in {"__main__", "__mp_main__"} or by_value.travels_by_value(module)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        raise NotComparable from None
