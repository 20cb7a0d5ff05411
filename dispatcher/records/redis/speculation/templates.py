"""Templates of changes: a transition is computed once per kind of run, and the server fills in each run's own values.

Computing it anew for each run takes longer than running a small flow. Used by ``claim.py`` and ``finish.py`` beside it;
``lua/templates.lua`` reads a template once, and applies it to many runs.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.records.redis.bounds import LONGEST_TEMPLATE, MOST_PARTS

# Ids, hosts, nonces, numbers: nothing that ends or escapes a JSON string.
_PLAIN = re.compile(r"[0-9A-Za-z_.:@/+-]*")

#: Values that the server knows itself, by name: the time, and the time of the run's acceptance.
NOW, ACCEPTED = "now", "accepted"


def is_plain(word: str) -> bool:
    """Return True if a word reads the same in JSON, and in JSON that is text in other JSON."""
    return _PLAIN.fullmatch(word) is not None


def placeholder_word() -> str:
    """Return a random word, which no flow's name can contain."""
    return uuid.uuid4().hex


def placeholder_time() -> float:
    """Return a random time, whose digits appear nowhere else in a change."""
    return 1e9 + secrets.randbelow(10**9) + secrets.randbelow(10**6) / 1e6


class ChangeTemplate:
    """A change of a sample run, in which the run's own words are places for values.

    Args:
        steps: of the sample.
        placeholders: by name, the words of the sample to replace. :data:`NOW` and :data:`ACCEPTED` are the server's.
        expected: fields that the record must have, with their values.
        reply: fields to return.
    """

    def __init__(
        self,
        steps: Sequence[Sequence[Any]],
        placeholders: Mapping[str, str],
        *,
        expected: Mapping[str, str],
        reply: Sequence[str] = (),
    ) -> None:
        self._names = tuple(name for name in placeholders if name not in {NOW, ACCEPTED})
        numbers = {name: number for number, name in enumerate((NOW, ACCEPTED, *self._names), start=1)}
        places = {word: numbers[name] for name, word in placeholders.items()}
        pattern = re.compile("|".join(map(re.escape, sorted(places, key=len, reverse=True))))
        places_of_steps = [[_with_places(str(word), pattern, places) for word in step] for step in steps]
        document = {
            "expect": list(expected.items()),
            "reply": list(reply),
            "steps": places_of_steps,
        }
        self.document = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        parts = sum(len(word) if isinstance(word, list) else 1 for step in places_of_steps for word in step)
        self.fits = len(self.document) <= LONGEST_TEMPLATE and parts <= MOST_PARTS  #: in the server's bounds
        self.digest = hashlib.sha1(self.document, usedforsecurity=False).hexdigest()

    def values(self, words: Mapping[str, str]) -> list[str]:
        """Return the values of one run, in the order in which the server expects them.

        Args:
            words: by name, what replaces each placeholder.
        """
        return [words[name] for name in self._names]


def _with_places(word: str, pattern: re.Pattern[str], places: Mapping[str, int]) -> str | int | list[str | int]:
    """Return a word of a step as the server reads it: a text, the number of a value, or a list of both to join."""
    parts: list[str | int] = []
    end = 0
    for match in pattern.finditer(word):
        parts += [word[end : match.start()], places[match[0]]]
        end = match.end()
    parts = [part for part in (*parts, word[end:]) if part != ""]
    if len(parts) > 1:
        return parts
    return parts[0] if parts else ""
