"""Templates of steps: a transition is rendered once per kind of run, and each run's own words are filled in.

Rendering it anew for each run takes longer than running a small flow. Used by ``claim.py`` and ``finish.py`` beside it.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping

# Ids, hosts, nonces, numbers: nothing that ends or escapes a JSON string.
_PLAIN = re.compile(r"[0-9A-Za-z_.:@/+-]*")


def is_plain(word: str) -> bool:
    """Return True if a word reads the same in JSON, and in JSON that is text in other JSON."""
    return _PLAIN.fullmatch(word) is not None


def placeholder_word() -> str:
    """Return a random word, which no flow's name can contain."""
    return uuid.uuid4().hex


def placeholder_time() -> float:
    """Return a random time, whose digits appear nowhere else in a change."""
    return 1e9 + secrets.randbelow(10**9) + secrets.randbelow(10**6) / 1e6


class StepTemplate:
    """Steps with placeholders.

    Args:
        steps: of a sample run, as JSON.
        placeholders: by name, the words of the sample to replace.
    """

    def __init__(self, steps: str, placeholders: Mapping[str, str]) -> None:
        names = {word: name for name, word in placeholders.items()}
        pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        self._parts = re.split(f"({pattern})", steps)
        self._places = [(n, names[self._parts[n]]) for n in range(1, len(self._parts), 2)]

    def render(self, words: Mapping[str, str]) -> bytes:
        """Return the steps of one run.

        Args:
            words: by name, what replaces each placeholder: plain words (:func:`is_plain`), or escaped text.
        """
        parts = self._parts.copy()
        for n, name in self._places:
            parts[n] = words[name]
        return "".join(parts).encode()
