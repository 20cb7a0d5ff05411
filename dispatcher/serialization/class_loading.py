"""Opening classes that travelled by value without disturbing those defined here.

cloudpickle finds a class that this process defined itself and would write the pickled members over its own: a result
opened in the submitter's program would rebind that program's methods to copies. Only copies are brought up to date.
Called by :mod:`dispatcher.serialization.pickles`.
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
    """Return what ``pickle.loads`` gives for ``data`` from ``start`` on, with this process's own classes left as they
    are."""
    if data.find(_SET_STATE.encode(), start) < 0:
        return pickle.loads(memoryview(data)[start:])
    stream = io.BytesIO(data)
    stream.seek(start)
    return _Unpickler(stream).load()


class Finder:
    """Finds classes for an unpickler, which it stands before."""

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


class _Unpickler(Finder, pickle.Unpickler):
    """The quick one."""


def _make_class(*args: Any) -> type:
    return _noted(internals._make_skeleton_class, args)


def _make_enum(*args: Any) -> type:
    return _noted(internals._make_skeleton_enum, args)


def _noted(make: Any, args: tuple[Any, ...]) -> type:
    *_, tracker_id, _extra = args
    known = internals._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)  # held: a class may be collected as one is made
    made: type = make(*args)
    if made is not known:
        _copies.add(made)
    return made


def _set_state(cls: type, state: Any) -> type:
    if cls in _copies:
        internals._class_setstate(cls, state)
    return cls
