"""Things inside lists, tuples and dicts. Used by executors for futures, Dask collections and sealed values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class _Open:
    """A list, tuple or dict whose parts are being looked at, one after the other."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.old = list(container.values()) if isinstance(container, dict) else list(container)
        self.new: list[Any] = []

    def made(self) -> Any:
        """It, if no part was replaced; else another one of its kind."""
        one, new = self.container, self.new
        if all(part is other for part, other in zip(new, self.old, strict=True)):
            return one
        if isinstance(one, dict):
            return dict(zip(one, new, strict=True))
        if isinstance(one, list):
            return new
        return type(one)(*new) if hasattr(one, "_fields") else tuple(new)


def replaced(value: Any, matches: Callable[[Any], bool], by: Callable[[Any], Any]) -> Any:
    """``value`` with every match in it replaced, also in lists, tuples and dicts, however deep; the same object if
    there is none."""
    if not isinstance(value, list | tuple | dict):
        return by(value) if matches(value) else value
    opened = [_Open([value])]
    above: set[int] = set()
    while True:
        inner = opened[-1]
        if len(inner.new) < len(inner.old):
            part = inner.old[len(inner.new)]
            if matches(part):
                inner.new.append(by(part))
            elif not isinstance(part, list | tuple | dict) or id(part) in above:  # or it holds itself
                inner.new.append(part)
            else:
                above.add(id(part))
                opened.append(_Open(part))
            continue
        opened.pop()
        if not opened:
            return inner.new[0]
        above.discard(id(inner.container))
        opened[-1].new.append(inner.made())
