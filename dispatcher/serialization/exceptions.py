"""Exceptions on their way, also those whose constructor takes other arguments than ``Exception`` keeps.

Pickle makes an exception anew from ``args``: one that says ``super().__init__(f"no {name}")`` would not open, or would
open with other words. Called by :mod:`dispatcher.serialization.pickles`.
"""

from __future__ import annotations

import copyreg
import types
from typing import Any


def reduced(error: BaseException) -> tuple[Any, ...] | str | None:
    """Return what pickle is to make of ``error``; None where its own way is right: no constructor in Python, or a
    ``__reduce__`` of its own."""
    found = _made_again(error)
    if found is None and _is_tblibs(type(error)):
        return error.__reduce_ex__(5)
    return found


def _is_tblibs(kind: type[BaseException]) -> bool:
    """Return True if tblib has taken over the pickling, as it does for all exceptions where Dask is imported: who opens
    the pickle need not have it."""
    reducer = copyreg.dispatch_table.get(kind)
    return getattr(reducer, "__module__", "").partition(".")[0] == "tblib"


def _made_again(error: BaseException) -> tuple[Any, ...] | None:
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
