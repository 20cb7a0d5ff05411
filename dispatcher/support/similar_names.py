"""Names that people misspelt: which one was meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence


def unknown_names(names: Sequence[str], allowed: Collection[str]) -> str:
    """Return unknown names with those that were meant, or else with all allowed ones.

    Args:
        names: what was given.
        allowed: what could be meant, in the order in which people should read it.
    """
    listed = ", ".join(repr(name) for name in names)
    similar = [near[0] for name in names if (near := difflib.get_close_matches(name, allowed, n=1))]
    if len(similar) == len(names):
        return f"{listed}; did you mean {', '.join(similar)}?"
    return f"{listed}; there are {', '.join(allowed)}"
