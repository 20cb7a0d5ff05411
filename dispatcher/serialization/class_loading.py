"""Unpickling of classes that travelled by value, without changing those that this process defined itself.

cloudpickle recognizes a class that this process defined, and would overwrite its members with the pickled ones: opening
a result in the submitter's program would rebind that program's methods to copies. So only classes that came out of a
pickle are updated. Called by :mod:`dispatcher.serialization.pickles`.
"""

from __future__ import annotations

import io
import pickle
import weakref
from typing import Any

from cloudpickle import cloudpickle as internals

_MODULE = "cloudpickle.cloudpickle"
_SET_STATE = "_class_setstate"
_copies: weakref.WeakSet[type] = weakref.WeakSet()  # classes of this process that came out of a pickle


def load(data: bytes, start: int) -> Any:
    """Unpickle ``data`` from offset ``start`` on, leaving classes that this process defined unchanged."""
    if data.find(_SET_STATE.encode(), start) < 0:
        return pickle.loads(memoryview(data)[start:])
    stream = io.BytesIO(data)
    stream.seek(start)
    return _Unpickler(stream).load()


class ClassFinder:
    """A mixin for unpicklers that replaces the functions with which cloudpickle makes classes."""

    def find_class(self, module: str, name: str, /) -> Any:
        if module == _MODULE:
            match name:
                case "_class_setstate":
                    return _set_state
                case "_make_skeleton_class":
                    return _make_class
                case "_make_skeleton_enum":
                    return _make_enum
        return super().find_class(module, name)  # type: ignore[misc]


class _Unpickler(ClassFinder, pickle.Unpickler):
    """The unpickler written in C."""


def _make_class(*args: Any) -> type:
    return _make_copy(internals._make_skeleton_class, args)


def _make_enum(*args: Any) -> type:
    return _make_copy(internals._make_skeleton_enum, args)


def _make_copy(make: Any, args: tuple[Any, ...]) -> type:
    """Make a class, and note it as a copy unless this process has it already."""
    *_, tracker_id, _extra = args
    existing = internals._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)  # the reference keeps it from being collected
    made: type = make(*args)
    if made is not existing:
        _copies.add(made)
    return made


def _set_state(cls: type, state: Any) -> type:
    if cls in _copies:
        internals._class_setstate(cls, state)
    return cls
