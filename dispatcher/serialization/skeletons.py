"""Empty classes, to be filled from a pickle, made without running what their definition ran in another process.

A metaclass of the user's and ``__init_subclass__`` have left their traces in what is pickled: run again, a registry
would hold a class twice, and an argument of the class statement would be missing. Called by
:mod:`dispatcher.serialization.class_loading`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import Any

from cloudpickle import cloudpickle as internals


def make(metaclass: type, name: str, bases: tuple[type, ...], namespace: Mapping[str, Any]) -> type:
    """Make a class.

    Args:
        metaclass: the class of the class.
        name: its name.
        bases: its base classes.
        namespace: the attributes that a class must have from its start.
    """
    body = {sys.intern(key): value for key, value in namespace.items()}
    resolved = types.resolve_bases(bases)  # of Box[int], Box
    quiet = any(_has_own_hook(base) for base in resolved if isinstance(base, type))
    if not quiet and not _is_from_pickle(metaclass):
        return types.new_class(name, bases, {"metaclass": metaclass}, lambda fresh: fresh.update(body))
    if resolved is not bases:
        body["__orig_bases__"] = bases
    installed: Any = next(kind for kind in metaclass.__mro__ if not _is_from_pickle(kind))
    if not quiet:
        return installed.__new__(metaclass, name, resolved, body)  # type: ignore[no-any-return]
    made = installed.__new__(_without_hook(metaclass), name, resolved, body)
    made.__class__ = metaclass
    made.__bases__ = made.__bases__  # its order of resolution is computed again, by its own metaclass
    return made  # type: ignore[no-any-return]


def _is_from_pickle(cls: type) -> bool:
    return cls in internals._DYNAMIC_CLASS_TRACKER_BY_CLASS


def _has_own_hook(base: type) -> bool:
    """Return True if subclasses of a class call an ``__init_subclass__`` that came out of a pickle itself."""
    owner = next(cls for cls in base.__mro__ if "__init_subclass__" in vars(cls))
    return _is_from_pickle(owner)


class _Silent:
    """Stands before the other bases while a class is made."""

    __slots__ = ()

    def __init_subclass__(cls, **_arguments: Any) -> None:
        pass


def _without_hook(metaclass: Any) -> type:
    def mro(cls: type) -> list[type]:
        first, *rest = metaclass.mro(cls)
        return [first, _Silent, *rest]

    return type(metaclass.__name__, (metaclass,), {"__slots__": (), "mro": mro})
