"""Lists of words in variables, as people write them: ``flows`` or ``eu, gpu``. For :mod:`dispatcher.settings`."""

from __future__ import annotations

_JSON = ("[", "{", '"')


def split(text: str) -> list[str]:
    """Return the words of a comma-separated list; none if the text is JSON, or a word is empty or contains a space."""
    if text.lstrip().startswith(_JSON):
        return []
    words = [word.strip() for word in text.split(",")]
    return words if all(len(word.split()) == 1 for word in words) else []
