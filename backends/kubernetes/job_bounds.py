"""Bounds on a user's own Job, checked before anything walks through all of it.

Aliases in YAML, and parts of a dictionary that are used again, let few bytes stand for billions; brackets in brackets
exhaust the stack. What counts is the Job written out in full.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dispatcher.errors import InvalidInput

#: Most characters of a Job written out in full, and most levels of its mappings and lists. Kubernetes itself takes
#: 1.5 MB, and its own fields nest 20 deep.
LARGEST = 2**18
DEEPEST = 100
_NUMBER = re.compile(r"[-+.]?[0-9][0-9a-fA-FxXoeE_:.+-]{64,}")


def check_text(events: Iterable[Any], *, source: str) -> None:
    """Check YAML by its events (``yaml.parse``), before it is composed.

    Raises:
        InvalidInput: it is too large or too deep, or an alias stands inside what it means.
    """
    sizes: dict[str | None, int] = {}
    opened: list[tuple[str | None, int]] = []
    size = 0
    for event in events:
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if kind == "AliasEvent":
            if anchor not in sizes:
                raise InvalidInput(f"{source}: the alias *{anchor} stands inside what it means, or before it")
            size += sizes[anchor]
        elif kind == "ScalarEvent":
            if event.implicit[0] and _NUMBER.fullmatch(event.value):
                raise InvalidInput(f"{source}: a number is too long (quote it, if it is text)")
            sizes[anchor] = weight = 1 + len(event.value)
            size += weight
        elif kind in {"MappingStartEvent", "SequenceStartEvent"}:
            opened.append((anchor, size))
            size += 2
        elif kind in {"MappingEndEvent", "SequenceEndEvent"}:
            anchor, before = opened.pop()
            sizes[anchor] = size - before
        _refuse(size, len(opened), source)


def check_value(value: Any, *, source: str) -> None:
    """Check a Job given as mappings and lists, however often it uses a part again.

    Raises:
        InvalidInput: it is too large or too deep, holds itself, or holds a number that is no machine's.
    """
    known: dict[int, tuple[int, int]] = {}  # written out: size and depth of each mapping and list
    path: list[tuple[Any, list[Any]]] = []
    active: set[int] = set()
    seen = 0
    rest = [value]
    while rest or path:
        if not rest:
            part, rest = path.pop()
            active.discard(id(part))
            known[id(part)] = _written_out(part, known, source)
            continue
        part = rest.pop()
        if not _holds(part) or id(part) in known:
            continue
        if id(part) in active:
            raise InvalidInput(f"{source}: it holds itself")
        active.add(id(part))
        path.append((part, rest))
        seen += len(part)
        _refuse(seen, len(path), source)
        rest = [one for one in _parts(part) if _holds(one)]


def _written_out(part: Any, known: Mapping[int, tuple[int, int]], source: str) -> tuple[int, int]:
    """Size and depth of a mapping or list whose own parts are known."""
    inner = [known[id(one)] if _holds(one) else (_weight(one, source), 0) for one in _parts(part)]
    size, depth = 2 + sum(one for one, _ in inner), 1 + max((one for _, one in inner), default=0)
    _refuse(size, depth, source)
    return size, depth


def _holds(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _parts(value: Any) -> list[Any]:
    return [*value.keys(), *value.values()] if isinstance(value, Mapping) else list(value)


def _weight(value: Any, source: str) -> int:
    if isinstance(value, int) and value.bit_length() > 64:
        raise InvalidInput(f"{source}: a number has more than 64 bits")
    return 1 + (len(value) if isinstance(value, str | bytes) else 0)


def _refuse(size: int, depth: int, source: str) -> None:
    if depth > DEEPEST:
        raise InvalidInput(f"{source}: mappings and lists are nested more than {DEEPEST} deep")
    if size > LARGEST:
        raise InvalidInput(
            f"{source}: it is larger than {LARGEST} characters, its aliases and repeated parts written out"
        )
