"""Code objects that travel by value keep the name of their file, so that a traceback shows the flow's own lines.

cloudpickle 3.1.3 gives all of them the same made-up name. Called by :mod:`dispatcher.serialization.pickles`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

Reduce = Callable[[CodeType], tuple[Callable[..., CodeType], tuple[Any, ...]]]


def reduced(code: CodeType, reduce: Reduce) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
    """Return what pickle is to do for ``code``: as ``reduce`` says, and then its file's name."""
    make, arguments = reduce(code)
    return _made, (code.co_filename, make, *arguments)


def _made(filename: str, make: Callable[..., CodeType], *arguments: Any) -> CodeType:
    return make(*arguments).replace(co_filename=filename)
