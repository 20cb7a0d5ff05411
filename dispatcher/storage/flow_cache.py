"""The objects on which the pickle of a flow rests, if all of it is sure to be the same as long as they are: then it may
be sent again without pickling it again. For the Redis storage, which pickles a flow at each submit.

Sure are only code, plain immutable values, and what travels by reference. A list, a flow's environment, a function of
the user's own: whatever could change inside while it stays the same object makes that flow be pickled each time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from operator import is_
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import cloudpickle

from dispatcher.runs.options import Options
from dispatcher.serialization import by_value
from dispatcher.support import signatures

if TYPE_CHECKING:
    from dispatcher.flows.flow import Flow

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, Options})
_ABSENT = object()

#: What cloudpickle takes from a function's module, whether or not its code names it.
_ABOUT_MODULE = ("__package__", "__name__", "__path__", "__file__")

#: What cloudpickle takes from a function beside its code, its globals and its closure.
_ABOUT_FUNCTION = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__")


class Unsure(Exception):
    """Something may change inside, or travels by value."""


def grounds(flow: Flow[..., Any]) -> tuple[Any, ...] | None:
    """All objects that the flow's pickle is made of; None if they don't tell whether it would be the same again.

    The pickle is the same as long as every one of them is the same object (:func:`same`).
    """
    try:
        return tuple(_of_flow(flow))
    except Unsure:
        return None


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Return True if two grounds are made of the same objects."""
    return len(one) == len(other) and all(map(is_, one, other))


def _of_flow(flow: Flow[..., Any]) -> Iterator[Any]:
    fn = flow.fn
    if type(fn) is not FunctionType or fn.__dict__ or cloudpickle.list_registry_pickle_by_value():
        raise Unsure
    if fn.__module__ != "__main__" and not by_value.travels_by_value(fn.__module__):
        raise Unsure  # by reference, if it has a name there: that is quick
    yield from _sure(type(flow))
    for name, value in flow.__dict__.items():
        yield name
        if value is fn:
            yield fn
        elif name == "__annotations__":
            yield from _of_items(value)
        else:
            yield from _sure(value)
    yield fn.__code__
    yield from _of_items(fn.__annotations__)
    yield from _of_items(fn.__kwdefaults__ or {})
    for name in _ABOUT_FUNCTION:
        yield from _sure(getattr(fn, name))
    for cell in fn.__closure__ or ():
        yield from _sure(_content(cell))
    yield from _of_globals(fn)


def _of_globals(fn: FunctionType) -> Iterator[Any]:
    held = fn.__globals__
    yield held
    for name in (*_names(fn.__code__), *_ABOUT_MODULE):
        value = held.get(name, _ABSENT)
        if value is _ABSENT:
            yield _ABSENT
        else:
            yield from _sure(value)


def _names(code: CodeType) -> Iterator[str]:
    """Every name that it, or code within it, may look up among its globals: more than it does."""
    yield from code.co_names
    for constant in code.co_consts:
        if type(constant) is CodeType:
            yield from _names(constant)


def _of_items(items: Mapping[str, Any]) -> Iterator[Any]:
    for name, value in items.items():
        yield name
        yield from _sure(value)


def _sure(value: Any) -> Iterable[Any]:
    """The objects whose sameness means that ``value`` travels in the same bytes.

    Raises:
        Unsure: nothing tells.
    """
    kind = type(value)
    if kind in _ATOMS:
        return (value,)
    if kind is tuple:
        return (value, *(part for one in value for part in _sure(one)))
    if kind is ModuleType and isinstance(value, ModuleType):
        # Of packages, cloudpickle sends the names of those submodules that are imported by now, too.
        if sys.modules.get(value.__name__) is value and not hasattr(value, "__path__") and not _moves(value.__name__):
            return (value, value.__name__)
    elif kind in {FunctionType, BuiltinFunctionType} or isinstance(value, type):
        name = signatures.importable_name(value)
        if name is not None and not _moves(value.__module__):
            return (value, sys.intern(name))
    raise Unsure


def _moves(module: str) -> bool:
    """Return True if what a module defines travels by value."""
    return module in {"__main__", "__mp_main__"} or by_value.travels_by_value(module)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty yet
        raise Unsure from None
