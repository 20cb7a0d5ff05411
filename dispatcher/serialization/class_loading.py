"""Unpickling of classes that travelled by value, without changing those that this process defined itself.

cloudpickle recognizes a class that this process defined, and would overwrite its members with the pickled ones: opening
a result in the submitter's program would rebind that program's methods to copies. So only classes that came out of a
pickle are updated. Called by :mod:`dispatcher.serialization.pickles`.
"""

from __future__ import annotations

import io
import pickle
import weakref
from collections.abc import Mapping
from types import MemberDescriptorType
from typing import Any

from cloudpickle import cloudpickle as internals

from dispatcher.serialization import skeletons

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


def with_slots(instructions: tuple[Any, ...], cls: type) -> tuple[Any, ...]:
    """Add a class's slots to cloudpickle's instructions for it, which would make it without any."""
    if "__slots__" not in vars(cls) or issubclass(cls, tuple):  # tuples have none, and NamedTuple adds them itself
        return instructions
    make, arguments, *rest = instructions
    members = [
        name
        for name, value in vars(cls).items()
        if name in {"__dict__", "__weakref__"}
        or (isinstance(value, MemberDescriptorType) and value.__objclass__ is cls)
    ]
    return make, (*arguments[:-1], {"slots": members}), *rest


def classes_of_main() -> dict[str, type]:
    """Return the classes that another process's ``__main__`` defined and that are in use here, by name; newer ones
    replace older ones."""
    tracked = list(internals._DYNAMIC_CLASS_TRACKER_BY_ID.values())
    return {cls.__qualname__: cls for cls in tracked if isinstance(cls, type) and cls.__module__ == "__main__"}


def forget_classes() -> None:
    """Forget the classes that came by value, so that those of the next run are its own."""
    with internals._DYNAMIC_CLASS_TRACKER_LOCK:
        internals._DYNAMIC_CLASS_TRACKER_BY_ID.clear()
        internals._DYNAMIC_CLASS_TRACKER_BY_CLASS.clear()


def _make_class(
    metaclass: type,
    name: str,
    bases: tuple[type, ...],
    namespace: Mapping[str, Any],
    tracker_id: str,
    extra: Mapping[str, Any] | None,
) -> type:
    """Make a class whose attributes follow, and note it as a copy; the class of that tracker if this process has it."""
    existing = internals._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)  # the reference keeps it from being collected
    if existing is not None:
        return existing  # type: ignore[no-any-return]
    slots = {"__slots__": tuple(extra["slots"])} if extra and "slots" in extra else {}
    made = skeletons.make(metaclass, name, bases, {**namespace, **slots})
    _copies.add(made)
    return internals._lookup_class_or_track(tracker_id, made)  # type: ignore[no-any-return]


def _make_enum(*args: Any) -> type:
    """Make an enum as cloudpickle does, and note it as a copy unless this process has it already."""
    *_, tracker_id, _extra = args
    existing = internals._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)
    made: type = internals._make_skeleton_enum(*args)
    if made is not existing:
        _copies.add(made)
    return made


def _set_state(cls: type, state: Any) -> type:
    if cls in _copies:
        internals._class_setstate(cls, state)
    return cls
