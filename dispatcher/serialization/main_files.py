"""The ``__file__`` of a script whose functions travel by value: it names the script's copy in the code bundle.

So ``Path(__file__).parent / "data.csv"`` within a function finds the file where the flow runs. A script comes along
only if its code says ``__file__``. Called by :mod:`dispatcher.serialization.pickles`; :func:`file_of` is named in
pickles.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from cloudpickle import cloudpickle as internals

from dispatcher.code.locations import locate

_NAME = "__file__"


class _FileName:
    """Stands in a pickle for the name of the script's file."""

    def __init__(self, module: str, path: str) -> None:
        self._arguments = module, path

    def __reduce__(self) -> tuple[Any, ...]:
        return file_of, self._arguments


def reduce_file_name(function: FunctionType, instructions: tuple[Any, ...]) -> frozenset[str]:
    """Replace ``__file__`` among the globals of a function of ``__main__`` that uses it.

    Args:
        function: the function.
        instructions: cloudpickle's for it, which are changed.

    Returns:
        The name by which the script is imported as a module, if its file has to come along.
    """
    if instructions[0] is not internals._make_function or not any(_NAME in code.co_names for code in _codes(function)):
        return frozenset()
    name, path = _script_of(function)
    if not name:
        return frozenset()
    _, state, *_ = instructions[1:]
    state[1]["__globals__"][_NAME] = _FileName(name, path)
    return frozenset({name})


def file_of(module: str, path: str) -> str:
    """Return the path of a script that was ``__main__`` elsewhere: here, or there if it didn't come along."""
    place = locate(module)
    return path if place is None or place.file is None else str(place.file)


def _script_of(function: FunctionType) -> tuple[str, str]:
    """The module's name and the path of the script that defined a function; empty if it can't be imported."""
    path = function.__globals__.get(_NAME)
    if function.__globals__.get("__name__") != "__main__" or not isinstance(path, str):
        return "", ""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = Path(path).stem if spec is None else str(spec.name)
    place = locate(name)
    is_same = place is not None and place.file is not None and place.file.resolve() == Path(path).resolve()
    return (name, path) if is_same else ("", "")


def _codes(function: FunctionType) -> Iterator[CodeType]:
    pending = [function.__code__]
    while pending:
        code = pending.pop()
        yield code
        pending += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
