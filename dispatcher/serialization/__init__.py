"""Serialization: how code and values travel between processes, and how they are signed.

The names are loaded on use, so that a program that only reads records never loads cloudpickle. Read
:mod:`dispatcher.serialization.pickles` next.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.serialization.pickles import pack, packages, unpack
    from dispatcher.serialization.signing_keys import KeyRing
    from dispatcher.serialization.values import from_value, to_value

__all__ = ["KeyRing", "from_value", "pack", "packages", "to_value", "unpack"]

_MODULES = {
    "KeyRing": "signing_keys",
    **dict.fromkeys(("pack", "packages", "unpack"), "pickles"),
    **dict.fromkeys(("from_value", "to_value"), "values"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
