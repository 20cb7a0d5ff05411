"""Counters of rejected forgeries and malformed entries, shown by ``dispatcher status``.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.errors import Malformed, SealBroken, ServerUnavailable


class Rejected(StrEnum):
    """The kinds of things that are rejected."""

    RUN = "run"  #: its spec, flow or parameters don't match its submitter's signature
    REPORT = "report"  #: of a container, but not made by the attempt that it names, or by one that has ended
    RESULT = "result"  #: a result or exception that its runner didn't seal
    DOORBELL = "doorbell"  #: for a run that the worker doesn't serve
    ENTRY = "entry"  #: a record, route, event, message or other entry that no release writes; it was left out

    def times(self, count: int) -> str:
        """Return the count in words, as ``3 reports``."""
        if self is Rejected.ENTRY:
            return f"{count} malformed {'entry' if count == 1 else 'entries'}"
        return f"{count} {self}{'s' * (count > 1)}"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The number of rejections, and the time of the last one in seconds since the epoch."""

    count: int
    last: float


class Rejections(ABC):
    """Counters since the installation began."""

    @abstractmethod
    def note(self, kind: Rejected, count: int = 1) -> None:
        """Count rejections."""

    @abstractmethod
    def tallies(self) -> dict[Rejected, Tally]:
        """Return the tally of each kind that was ever rejected."""


def count_rejection(rejections: Rejections, kind: Rejected, count: int = 1) -> None:
    """Count rejections if the server answers. The rejection itself never depends on that."""
    with suppress(ServerUnavailable, Malformed):
        rejections.note(kind, count)


@contextmanager
def counting_broken_seals(rejections: Rejections, kind: Rejected) -> Iterator[None]:
    """Count a broken seal that is found in the ``with`` block, and raise it on.

    Raises:
        SealBroken: as raised in the block.
    """
    try:
        yield
    except SealBroken:
        count_rejection(rejections, kind)
        raise
