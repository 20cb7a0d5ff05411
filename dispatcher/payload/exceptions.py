"""Exceptions on their way, also those whose constructor takes other arguments than ``Exception`` keeps.

Pickle makes an exception anew from ``args``: one that says ``super().__init__(f"no {name}")`` would not open, or would
open with other words. Called by :mod:`dispatcher.payload.pickles`.
"""

from __future__ import annotations

import types
from typing import Any


def reduced(error: BaseException) -> tuple[Any, ...] | None:
    """What pickle is to make of ``error``; None where its own way is right: no constructor in Python, or a
    ``__reduce__`` of its own."""
    kind = type(error)
    if not _is_python(kind, "__init__") or _is_python(kind, "__new__", "__reduce__", "__reduce_ex__"):
        return None
    if any("__slots__" in vars(base) for base in kind.__mro__):  # only its constructor fills them
        return None
    made = error.__reduce__()
    if not isinstance(made, tuple) or made[0] is not kind:
        return None
    return again, (kind, *made[1]), *made[2:]


def again(kind: type[BaseException], *args: Any) -> BaseException:
    """An exception as the built-in class under ``kind`` makes it; what its own constructor noted follows as state."""
    error = kind.__new__(kind, *args)
    builtin: Any = next(base for base in kind.__mro__ if not _is_python(base, "__init__"))
    builtin.__init__(error, *args)
    return error


def _is_python(kind: type, *names: str) -> bool:
    return any(isinstance(getattr(kind, name), types.FunctionType) for name in names)
