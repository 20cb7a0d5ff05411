"""Pickling of code objects with the name of their file, so that a traceback shows the flow's own lines.

cloudpickle 3.1.3 gives the same invented file name to all of them. Called by :mod:`dispatcher.serialization.pickles`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

Reduce = Callable[[CodeType], tuple[Callable[..., CodeType], tuple[Any, ...]]]


def reduce_code(code: CodeType, reduce: Reduce) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
    """Return pickle's instructions for ``code``: those of ``reduce``, and then its file name."""
    make, arguments = reduce(code)
    return make_code, (code.co_filename, make, *arguments)


def make_code(filename: str, make: Callable[..., CodeType], *arguments: Any) -> CodeType:
    """Make a code object with a file name. Called by pickles."""
    return make(*arguments).replace(co_filename=filename)
