"""Empty classes, to be filled from a pickle, made without running what their definition ran in another process.

A metaclass of the user's and ``__init_subclass__`` have left their traces in what is pickled: run again, a registry
would hold a class twice, and an argument of the class statement would be missing. Called by
:mod:`dispatcher.serialization.class_loading`.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Mapping
from typing import Any

from cloudpickle import cloudpickle as internals

_HOOK = "__init_subclass__"
_lock = threading.RLock()  # classes lack their hooks meanwhile


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
    hooks = {
        owner: vars(owner)[_HOOK]
        for base in resolved
        if isinstance(base, type)
        for owner in base.__mro__
        if _HOOK in vars(owner) and _is_from_pickle(owner)
    }
    with _lock:
        for owner in hooks:
            delattr(owner, _HOOK)
        try:
            if not _is_from_pickle(metaclass):
                return types.new_class(name, bases, {"metaclass": metaclass}, lambda fresh: fresh.update(body))
            if resolved is not bases:
                body["__orig_bases__"] = bases
            installed: Any = next(kind for kind in metaclass.__mro__ if not _is_from_pickle(kind))
            return installed.__new__(metaclass, name, resolved, body)  # type: ignore[no-any-return]
        finally:
            for owner, hook in hooks.items():
                setattr(owner, _HOOK, hook)


def _is_from_pickle(cls: type) -> bool:
    return cls in internals._DYNAMIC_CLASS_TRACKER_BY_CLASS
