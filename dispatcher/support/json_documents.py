"""JSON written by people, in a file, an option or a variable: a duplicate key in an object is an error.

Python's parser silently uses the last value. JSON written by programs is read by :mod:`dispatcher.support.parsing`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from dispatcher.support.escaping import shown

_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[\[\]{}]', re.DOTALL)


class DuplicateKey(ValueError):
    """A key appears twice in one object. The message names the key, and the line if there are several."""

    def __init__(self, key: object, line: int = 0) -> None:
        super().__init__(f"the key {shown(key)} appears twice{f' (line {line})' if line else ''}; write it once")


def read_document(document: str | bytes) -> Any:
    """Parse a JSON document.

    Raises:
        DuplicateKey: a key appears twice in an object.
        ValueError: it isn't JSON, or isn't UTF-8.
        RecursionError: it is too deep.
    """
    text = document if isinstance(document, str) else document.decode()
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except DuplicateKey as error:
        raise _locate(text) or error from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        firsts = iter(members)
        raise DuplicateKey(next(name for name, _ in pairs if name != next(firsts, None)))
    return members


def _locate(text: str) -> DuplicateKey | None:
    """Find the first duplicate key of a JSON document, with its line if there are several."""
    open_: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        string, is_key = token.groups()
        if string is None:
            if token[0] in "[{":
                open_.append(set())
            else:
                open_.pop()
        elif is_key:
            key = json.loads(string, strict=False)
            if key in open_[-1]:
                return DuplicateKey(key, text.count("\n", 0, token.start()) + 1 if "\n" in text.strip() else 0)
            open_[-1].add(key)
    return None
