"""Enum classes that travel by value, with all that their members hold.

cloudpickle makes an enum anew from its members' values, which loses attributes, aliases, zero members and what a mixin
makes of a value. Here the class is made empty, its members as bare instances, and their state follows. Called by
:mod:`dispatcher.serialization.pickles`; :func:`make_class` and :func:`set_state` are named in pickles.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from enum import Enum
from typing import Any

from cloudpickle import cloudpickle as internals

#: Attributes of an enum class that are made again from its members.
_DERIVED = frozenset(
    {
        "__dict__",
        "__weakref__",
        "_abc_impl",
        "_member_map_",
        "_member_names_",
        "_value2member_map_",
        "_hashable_values_",
        "_unhashable_values_",
        "_unhashable_values_map_",
    }
)

_copies: weakref.WeakSet[type] = weakref.WeakSet()  # classes of this process that came out of a pickle


def reduce_class(cls: type[Enum]) -> tuple[Any, ...]:
    """Return the instructions for pickle to make an enum class again."""
    members = dict(cls.__members__)
    names = {id(member): name for name, member in reversed(members.items())}
    attributes = {
        name: value
        for name, value in internals._extract_class_dict(cls).items()
        if name not in _DERIVED and not (name in members and value is members[name])
    }
    state = {
        "attributes": attributes,
        "members": {names[id(member)]: dict(member.__dict__) for member in members.values()},
        "values": [(value, names[id(member)]) for value, member in _values(cls) if id(member) in names],
    }
    arguments = (
        type(cls),
        cls.__bases__,
        cls.__name__,
        cls.__qualname__,
        cls.__module__,
        internals._get_or_create_tracker_id(cls),
        {name: names[id(member)] for name, member in members.items()},
        {names[id(member)]: _new_arguments(member) for member in members.values()},
        list(cls._member_names_),
    )
    return make_class, arguments, state, None, None, set_state


def reduce_member(member: Enum) -> tuple[Any, ...] | None:
    """Return the instructions for a member; None for a combination of flags without a name, which its value makes."""
    cls = type(member)
    for name, other in cls.__members__.items():
        if other is member:
            return find_member, (cls, name)
    return None


def find_member(cls: type[Enum], name: str) -> Enum:
    """Return a member by its name."""
    return cls.__members__[name]


def make_class(  # noqa: PLR0913, PLR0917 - named in pickles, which hold its arguments
    metaclass: type,
    bases: tuple[type, ...],
    name: str,
    qualname: str,
    module: str,
    tracker_id: str,
    members: Mapping[str, str],
    arguments: Mapping[str, tuple[Any, ...]],
    canonical: list[str],
) -> type[Enum]:
    """Make an enum class whose members have no state yet; the class of that tracker if this process has it.

    Args:
        metaclass: the class of the class.
        bases: its base classes.
        name: its name.
        qualname: its qualified name.
        module: the module that defines it.
        tracker_id: cloudpickle's id of the class, the same in each process.
        members: name of each member, and the name under which it was defined first.
        arguments: of each member, what the constructor of its immutable base takes.
        canonical: the members that iteration gives.
    """
    tracked = internals._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker_id)  # held: a class may be collected meanwhile
    if tracked is not None:
        return tracked  # type: ignore[no-any-return]
    cls: Any = type.__new__(metaclass, name, bases, {"__module__": module, "__qualname__": qualname})
    base = _builtin_base(cls)
    made = {first: base.__new__(cls, *values) for first, values in arguments.items()}
    _set(cls, "_member_map_", {name: made[first] for name, first in members.items()})
    _set(cls, "_member_names_", list(canonical))
    _set(cls, "_value2member_map_", {})
    for derived in ("_hashable_values_", "_unhashable_values_"):
        _set(cls, derived, [])
    _set(cls, "_unhashable_values_map_", {})
    _copies.add(cls)
    return internals._lookup_class_or_track(tracker_id, cls)  # type: ignore[no-any-return]


def set_state(cls: Any, state: Mapping[str, Any]) -> Any:
    """Fill a class that :func:`make_class` made, and its members; one that this process knew stays as it is."""
    if cls not in _copies:
        return cls
    _copies.discard(cls)
    for name, value in state["attributes"].items():
        _set(cls, name, value)
    for name, attributes in state["members"].items():
        cls._member_map_[name].__dict__.update(attributes)
    for name, member in cls._member_map_.items():
        if name not in cls.__dict__:
            _set(cls, name, member)
    for value, name in state["values"]:
        _note_value(cls, value, cls._member_map_[name])
    return cls


def _values(cls: Any) -> list[tuple[Any, Any]]:
    values = list(cls._value2member_map_.items())
    ids = {id(member) for _, member in values}
    return values + [(member._value_, member) for member in cls.__members__.values() if id(member) not in ids]


def _note_value(cls: Any, value: Any, member: Any) -> None:
    try:
        cls._value2member_map_[value] = member
        cls._hashable_values_.append(value)
    except TypeError:  # unhashable: Enum compares those one by one
        cls._unhashable_values_.append(value)
        cls._unhashable_values_map_.setdefault(member._name_, []).append(value)


def _new_arguments(member: Enum) -> tuple[Any, ...]:
    """The arguments of the immutable base's constructor, such as the number of an IntEnum's member."""
    for base in type(member).__mro__:
        if base in {int, str, bytes, float, complex, tuple}:
            plain: Any = base
            return (plain.__getnewargs__(member)[0],)
    return ()


def _builtin_base(cls: type) -> Any:
    """The class whose constructor makes bare instances: the nearest one that isn't written in Python."""
    return next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, or its like


def _set(cls: Any, name: str, value: Any) -> None:
    type.__setattr__(cls, name, value)  # the metaclass refuses to replace members
