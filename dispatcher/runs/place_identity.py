"""The identity of a place where runs have their infrastructure, such as a cluster: what tells it from others. Pure.

An address, a name in the settings or a certificate doesn't identify a cluster. An *anchor* does: something in it that
lives as long as it does, with a UID that the service gave it. A backend reads the anchors that it may read, stores them
with each request and handle, and compares them before it concludes anything from what it doesn't find.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

#: Anchor → UID. An anchor of the whole place has a plain name; one of a part of it is named ``anchor/part``.
Identity = Mapping[str, str]

_LONGEST = 256  # characters of an anchor or UID
_MOST = 256  # anchors of one identity


class Agreement(StrEnum):
    """The result of comparing two identities."""

    SAME = "same"  #: they are of one place
    DIFFERENT = "different"  #: they are of two places
    UNCLEAR = "unclear"  #: they have no anchor in common


def compare(identity: Identity, other: Identity) -> Agreement:
    """Compare two identities by the anchors that both have; those of the whole place decide alone."""
    common = identity.keys() & other.keys()
    decisive = {anchor for anchor in common if "/" not in anchor} or common
    if not decisive:
        return Agreement.UNCLEAR
    return Agreement.SAME if any(identity[anchor] == other[anchor] for anchor in decisive) else Agreement.DIFFERENT


def part_of(identity: Identity, part: str) -> dict[str, str]:
    """Return the anchors of the whole place, and those of one of its parts."""
    return {anchor: uid for anchor, uid in identity.items() if anchor.partition("/")[2] in {"", part}}


def read_identity(value: Any) -> dict[str, str]:
    """Return an identity as it was stored; empty if the value isn't one."""
    if not isinstance(value, Mapping) or len(value) > _MOST:
        return {}
    texts = (text for item in value.items() for text in item)
    return dict(value) if all(isinstance(text, str) and 0 < len(text) <= _LONGEST for text in texts) else {}


def shown(identity: Identity) -> str:
    """Return an identity for people: the anchors of the whole place with their UIDs, else those of its parts."""
    anchors = sorted(anchor for anchor in identity if "/" not in anchor) or sorted(identity)
    return ", ".join(f"{anchor} {identity[anchor]}" for anchor in anchors) or "no identity"
