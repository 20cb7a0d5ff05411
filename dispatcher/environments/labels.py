"""The labels of an environment: a sorted tuple that also compares equal to a set, as in Prefect 0.10."""

from __future__ import annotations


class Labels(tuple[str, ...]):
    """Labels, sorted and without duplicates. ``labels == {"gpu", "eu"}`` compares them as a set does."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, set):
            return set(self) == other
        return tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__
