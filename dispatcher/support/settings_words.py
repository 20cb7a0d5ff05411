"""Lists of words in variables, as people write them: ``flows`` or ``eu, gpu``. For :mod:`dispatcher.settings`."""

from __future__ import annotations

import re

#: A word. Others are written in JSON: a URL here was meant for another variable, and may hold a password.
_WORD = re.compile(r"(?!.*://)[\w.:/=+-]+")


def split(text: str) -> list[str]:
    """Return the words of a comma-separated list; none if one of them is empty, or not a plain word."""
    words = [word.strip() for word in text.split(",")]
    return words if all(_WORD.fullmatch(word) for word in words) else []
