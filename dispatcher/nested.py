"""Things inside lists, tuples and dicts. Used by executors for futures, Dask collections and sealed values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def replaced(value: Any, matches: Callable[[Any], bool], by: Callable[[Any], Any], _above: tuple[int, ...] = ()) -> Any:
    """``value`` with every match in it replaced, also in lists, tuples and dicts; the same object if there is none."""
    if matches(value):
        return by(value)
    if not isinstance(value, list | tuple | dict) or id(value) in _above:  # or it holds itself
        return value
    above = (*_above, id(value))
    old = list(value.values()) if isinstance(value, dict) else list(value)
    new = [replaced(one, matches, by, above) for one in old]
    if all(one is other for one, other in zip(new, old, strict=True)):
        return value
    if isinstance(value, dict):
        return dict(zip(value, new, strict=True))
    if isinstance(value, list):
        return new
    return type(value)(*new) if hasattr(value, "_fields") else tuple(new)
