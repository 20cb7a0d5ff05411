"""Bounds on the size and depth of a user's own Job, checked before anything else walks through it.

With aliases in YAML, or parts of a dictionary that are used repeatedly, a few bytes can stand for billions. Deep
nesting exhausts the stack. The Job is measured with all of it written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dispatcher.errors import InvalidInput

#: Maximum characters of a Job written out in full, and levels of its mappings and lists. Kubernetes itself accepts
#: 1.5 MB, and its own fields nest 20 deep.
MAX_SIZE = 2**18
MAX_DEPTH = 100
_LONG_NUMBER = re.compile(r"[-+.]?[0-9][0-9a-fA-FxXoeE_:.+-]{64,}")


def check_text(events: Iterable[Any], *, source: str) -> None:
    """Check YAML by its events (``yaml.parse``), before it is composed.

    Args:
        events: of the parser.
        source: the argument or file, for messages.

    Raises:
        InvalidInput: the YAML is too large or too deep, or an alias is inside of its own anchor.
    """
    sizes: dict[str | None, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    size = 0
    for event in events:
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if kind == "AliasEvent":
            if anchor not in sizes:
                raise InvalidInput(f"{source}: the alias *{anchor} stands inside its own anchor, or before it")
            size += sizes[anchor]
        elif kind == "ScalarEvent":
            if event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
                raise InvalidInput(f"{source}: a number is too long (quote it, if it is text)")
            sizes[anchor] = scalar_size = 1 + len(event.value)
            size += scalar_size
        elif kind in {"MappingStartEvent", "SequenceStartEvent"}:
            open_nodes.append((anchor, size))
            size += 2
        elif kind in {"MappingEndEvent", "SequenceEndEvent"}:
            anchor, before = open_nodes.pop()
            sizes[anchor] = size - before
        _check_bounds(size, len(open_nodes), source)


def check_value(value: Any, *, source: str) -> None:
    """Check a Job given as mappings and lists. Parts that it uses repeatedly are walked once, and count each time.

    Args:
        value: the Job, or a part of one.
        source: the argument or file, for messages.

    Raises:
        InvalidInput: the value is too large or too deep, contains itself, or has a number of more than 64 bits.
    """
    measures: dict[int, tuple[int, int]] = {}  # size and depth of each mapping and list, written out
    path: list[tuple[Any, list[Any]]] = []
    active: set[int] = set()
    size = 0
    rest = [value]
    while rest or path:
        if not rest:
            part, rest = path.pop()
            active.discard(id(part))
            measures[id(part)] = _measure(part, measures, source)
            continue
        part = rest.pop()
        if not _is_container(part) or id(part) in measures:
            continue
        if id(part) in active:
            raise InvalidInput(f"{source}: it contains itself")
        active.add(id(part))
        path.append((part, rest))
        size += len(part)
        _check_bounds(size, len(path), source)
        rest = [child for child in _children(part) if _is_container(child)]


def _measure(part: Any, measures: Mapping[int, tuple[int, int]], source: str) -> tuple[int, int]:
    """Return size and depth of a mapping or list whose children are measured."""
    inner = [
        measures[id(child)] if _is_container(child) else (_scalar_size(child, source), 0) for child in _children(part)
    ]
    size, depth = 2 + sum(size for size, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    _check_bounds(size, depth, source)
    return size, depth


def _is_container(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _children(value: Any) -> list[Any]:
    return [*value.keys(), *value.values()] if isinstance(value, Mapping) else list(value)


def _scalar_size(value: Any, source: str) -> int:
    if isinstance(value, int) and value.bit_length() > 64:
        raise InvalidInput(f"{source}: a number has more than 64 bits")
    return 1 + (len(value) if isinstance(value, str | bytes) else 0)


def _check_bounds(size: int, depth: int, source: str) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{source}: mappings and lists are nested more than {MAX_DEPTH} deep")
    if size > MAX_SIZE:
        raise InvalidInput(
            f"{source}: it is larger than {MAX_SIZE} characters (it has {size} or more), its aliases and repeated "
            "parts written out"
        )


def check_total(texts: Iterable[str], *, source: str) -> None:
    """Check the size of all that one environment puts into a Job.

    Args:
        texts: its parts.
        source: the environment's name, for messages.

    Raises:
        InvalidInput: they are too large together.
    """
    size = sum(map(len, texts))
    if size > MAX_SIZE:
        raise InvalidInput(
            f"{source}: its Job has {size} characters with all arguments, and may have {MAX_SIZE}: give large data to "
            "the flow as parameters, or mount it"
        )
