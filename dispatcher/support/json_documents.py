"""JSON that a person wrote, in a file, an option or a variable: a key that stands twice in an object is an error.

JSON's own readers take the last one without a word. What a program wrote is read by :mod:`dispatcher.support.parsing`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from dispatcher.support.escaping import shown

_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[\[\]{}]', re.DOTALL)


class DuplicateKey(ValueError):
    """A key stands twice in one object; the text names the key, and the line where there are several."""

    def __init__(self, key: object, line: int = 0) -> None:
        super().__init__(f"the key {shown(key)} stands twice{f' (line {line})' if line else ''}; write it once")


def read_document(given: str | bytes) -> Any:
    """The value of a JSON document.

    Raises:
        DuplicateKey: a key stands twice in an object.
        ValueError: it isn't JSON, or isn't UTF-8.
        RecursionError: it is too deep.
    """
    text = given if isinstance(given, str) else given.decode()
    try:
        return json.loads(text, object_pairs_hook=_once)
    except DuplicateKey as error:
        raise _found(text) or error from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        firsts = iter(made)
        raise DuplicateKey(next(name for name, _ in pairs if name != next(firsts, None)))
    return made


def _found(text: str) -> DuplicateKey | None:
    """The first key of a JSON document that stands twice, with its line if the document has several."""
    open_: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        word, is_key = token.groups()
        if word is None:
            if token[0] in "[{":
                open_.append(set())
            else:
                open_.pop()
        elif is_key:
            key = json.loads(word, strict=False)
            if key in open_[-1]:
                return DuplicateKey(key, text.count("\n", 0, token.start()) + 1 if "\n" in text.strip() else 0)
            open_[-1].add(key)
    return None
