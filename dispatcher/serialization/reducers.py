"""Objects of ``__main__`` that pickle takes by their name, or not at all, and how they travel by value.

Caches arrive empty, with the same parameters. Called by :mod:`dispatcher.serialization.pickles`; the functions that
make objects are named in pickles.
"""

from __future__ import annotations

import contextvars
import functools
import struct
import sys
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, cast

from cloudpickle import cloudpickle as internals

from dispatcher.serialization import by_value, enum_classes

_SINGLE_DISPATCH_CODE = cast(types.FunctionType, functools.singledispatch(lambda argument: argument)).__code__

# Context variables that have travelled. They can't be referred to weakly; a program has few, and keeps them.
_variables: dict[str, contextvars.ContextVar[Any]] = {}
_variable_ids: dict[contextvars.ContextVar[Any], str] = {}


def reduce_by_value(obj: Any) -> tuple[Any, ...] | None:
    """Return how an object travels, if pickle and cloudpickle can't say; None for every other object."""
    kind = type(obj)
    reduce = _BY_TYPE.get(kind)
    if reduce is not None:
        return reduce(obj)
    if isinstance(obj, Enum):
        return None if _is_importable(kind) else enum_classes.reduce_member(obj)
    if isinstance(obj, type) and issubclass(obj, Enum):
        return None if _is_importable(obj) or obj is Enum else enum_classes.reduce_class(obj)
    if isinstance(obj, types.DynamicClassAttribute) or (isinstance(obj, property) and kind is not property):
        return make_descriptor, (kind, obj.fget, obj.fset, obj.fdel, obj.__doc__), dict(vars(obj))
    if obj is sys.stdout or obj is sys.stderr:  # whatever stands there, it is the other process's own
        return getattr, (sys, "stdout" if obj is sys.stdout else "stderr")
    return None


def _is_importable(obj: Any) -> bool:
    return bool(internals._should_pickle_by_reference(obj))


def _reduce_function(function: types.FunctionType) -> tuple[Any, ...] | None:
    if function.__code__ is not _SINGLE_DISPATCH_CODE or _is_importable(function):
        return None
    dispatch: Any = function
    return make_single_dispatch, (dispatch.__wrapped__,), dict(dispatch.registry), None, None, register_all


def _reduce_lru_cache(cache: Any) -> tuple[Any, ...] | None:
    if _is_importable_by_name(cache):
        return None
    parameters = cache.cache_parameters()
    return make_lru_cache, (cache.__wrapped__, parameters["maxsize"], parameters["typed"]), _own_attributes(cache)


def _own_attributes(cache: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(cache).items() if name not in {"__wrapped__", "cache_parameters"}}


def _reduce_cached_property(descriptor: Any) -> tuple[Any, ...]:
    return make_cached_property, (descriptor.func, descriptor.attrname, descriptor.__doc__)


def _reduce_new_type(new_type: Any) -> tuple[Any, ...] | None:
    if _is_importable_by_name(new_type):
        return None
    arguments = new_type.__qualname__, new_type.__supertype__, new_type.__module__
    return make_new_type, (*arguments, internals._get_or_create_tracker_id(new_type))


def _reduce_type_parameter(parameter: Any) -> tuple[Any, ...] | None:
    if _is_importable_by_name(parameter):
        return None
    names = ("__bound__", "__covariant__", "__contravariant__", "__infer_variance__", "__default__")
    options = {
        name.strip("_"): value
        for name in names
        if (value := getattr(parameter, name, None)) not in (None, False) and "NoDefault" not in repr(value)
    }
    arguments = type(parameter), parameter.__name__, options, parameter.__module__
    return make_type_parameter, (*arguments, internals._get_or_create_tracker_id(parameter))


def _is_importable_by_name(obj: Any) -> bool:
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if not name or not getattr(obj, "__module__", None):
        return False
    place = internals._lookup_module_and_qualname(obj, name)
    return place is not None and not internals._is_registered_pickle_by_value(place[0])


def _reduce_context_variable(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    place = _place_of(variable)
    if place is not None:
        return getattr, place
    identifier = _variable_ids.setdefault(variable, uuid.uuid4().hex)
    _variables[identifier] = variable
    try:
        default: tuple[Any, ...] = (contextvars.Context().run(variable.get),)
    except LookupError:
        default = ()
    return make_context_variable, (identifier, variable.name, *default)


def _place_of(variable: contextvars.ContextVar[Any]) -> tuple[types.ModuleType, str] | None:
    """The module that a variable is imported from, and its name there."""
    for name, module in list(sys.modules.items()):
        if type(module) is types.ModuleType and name != "__main__" and not by_value.travels_by_value(name):
            for attribute, value in list(vars(module).items()):
                if value is variable:
                    return module, attribute
    return None


def _reduce_struct(form: struct.Struct) -> tuple[Any, ...]:
    return struct.Struct, (form.format,)


def make_lru_cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Make an empty cache of a function's results."""
    return functools.lru_cache(maxsize=maxsize, typed=typed)(function)


def make_single_dispatch(function: Callable[..., Any]) -> Any:
    """Make a generic function with one implementation."""
    return functools.singledispatch(function)


def register_all(generic: Any, registry: Mapping[type, Callable[..., Any]]) -> Any:
    """Give a generic function its implementations."""
    for kind, implementation in registry.items():
        generic.register(kind, implementation)
    return generic


def make_cached_property(function: Callable[[Any], Any], name: str | None, doc: str | None) -> Any:
    """Make a cached property of a class that is made again."""
    descriptor: Any = functools.cached_property(function)
    descriptor.attrname, descriptor.__doc__ = name, doc
    return descriptor


def make_new_type(name: str, supertype: Any, module: str, tracker_id: str) -> Any:
    """Make a ``NewType``, or return the one of that tracker if this process has it."""
    make: Any = typing.NewType
    new_type = make(name.rpartition(".")[2], supertype)
    new_type.__qualname__, new_type.__module__ = name, module
    return internals._lookup_class_or_track(tracker_id, new_type)


def make_type_parameter(
    kind: Callable[..., Any], name: str, options: Mapping[str, Any], module: str, tracker_id: str
) -> Any:
    """Make a ``ParamSpec``, ``TypeVarTuple`` or their like, or return the one of that tracker if it is here."""
    parameter = kind(name, **options)
    parameter.__module__ = module
    return internals._lookup_class_or_track(tracker_id, parameter)


def make_context_variable(identifier: str, name: str, *default: Any) -> contextvars.ContextVar[Any]:
    """Make a context variable that has its default, or return the one that this process knows."""
    if identifier not in _variables:
        made = contextvars.ContextVar(name, default=default[0]) if default else contextvars.ContextVar(name)
        _variable_ids[made] = identifier
        _variables[identifier] = made
    return _variables[identifier]


def make_descriptor(kind: type[Any], *arguments: Any) -> Any:
    """Make an object of a subclass of ``property``, or of ``types.DynamicClassAttribute``; its state follows."""
    base = property if issubclass(kind, property) else types.DynamicClassAttribute
    descriptor: Any = base.__new__(kind)
    base.__init__(descriptor, *arguments)
    return descriptor


_BY_TYPE: Mapping[type, Callable[[Any], tuple[Any, ...] | None]] = {
    types.FunctionType: _reduce_function,
    functools._lru_cache_wrapper: _reduce_lru_cache,
    functools.cached_property: _reduce_cached_property,
    typing.NewType: _reduce_new_type,
    typing.ParamSpec: _reduce_type_parameter,
    typing.TypeVarTuple: _reduce_type_parameter,
    contextvars.ContextVar: _reduce_context_variable,
    struct.Struct: _reduce_struct,
}
