"""Pickling of exceptions, including those whose constructor takes other arguments than ``Exception`` keeps.

Pickle rebuilds an exception by calling its class with ``args``. A class whose constructor calls
``super().__init__(f"no {name}")`` would fail then, or get another message. Called by
:mod:`dispatcher.serialization.pickles`.
"""

from __future__ import annotations

import copyreg
import types
from typing import Any


def reduce_exception(error: BaseException) -> tuple[Any, ...] | str | None:
    """Return pickle's instructions for ``error``.

    Returns:
        None if pickle's own are right: the class has no constructor in Python, or a ``__reduce__`` of its own.
    """
    instructions = _rebuilding(error)
    if instructions is None and _uses_tblib(type(error)):
        return error.__reduce_ex__(5)
    return instructions


def _uses_tblib(kind: type[BaseException]) -> bool:
    """Return True if tblib handles the pickling, as it does for all exceptions once Dask is imported.

    The process that opens the pickle may not have tblib.
    """
    reducer = copyreg.dispatch_table.get(kind)
    return getattr(reducer, "__module__", "").partition(".")[0] == "tblib"


def _rebuilding(error: BaseException) -> tuple[Any, ...] | None:
    kind = type(error)
    if not _is_python(kind, "__init__") or _is_python(kind, "__new__", "__reduce__", "__reduce_ex__"):
        return None
    if any("__slots__" in vars(base) for base in kind.__mro__):  # only its constructor fills them
        return None
    reduced = error.__reduce__()
    if not isinstance(reduced, tuple) or reduced[0] is not kind:
        return None
    return rebuild_exception, (kind, *reduced[1]), *reduced[2:]


def rebuild_exception(kind: type[BaseException], *args: Any) -> BaseException:
    """Make an exception by the constructor of the built-in class under ``kind``. Called by pickles.

    Attributes that its own constructor set follow as state.
    """
    error = kind.__new__(kind, *args)
    builtin: Any = next(base for base in kind.__mro__ if not _is_python(base, "__init__"))
    builtin.__init__(error, *args)
    return error


def _is_python(kind: type, *names: str) -> bool:
    return any(isinstance(getattr(kind, name), types.FunctionType) for name in names)
