"""Seal and open: how code and values travel between processes, and how they are signed.

The names are loaded on use: who only reads records never loads cloudpickle.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.serialization.pickles import PYTHON, pack, packages, unpack
    from dispatcher.serialization.signing_keys import KeyRing
    from dispatcher.serialization.values import from_value, to_value

__all__ = ["PYTHON", "KeyRing", "from_value", "pack", "packages", "to_value", "unpack"]

_HOMES = {
    "KeyRing": "signing_keys",
    **dict.fromkeys(("PYTHON", "pack", "packages", "unpack"), "pickles"),
    **dict.fromkeys(("from_value", "to_value"), "values"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
