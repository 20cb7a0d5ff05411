"""Rejected entries, counted: what isn't what it says it is shows people that somebody tries.

The interface stands beside those of :mod:`dispatcher.records.base`, under the same contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.errors import Malformed, SealBroken, ServerUnavailable


class Rejected(StrEnum):
    """The kind of what was refused."""

    RUN = "run"  #: its spec, flow or parameters aren't what its submitter signed, or no longer
    REPORT = "report"  #: a container's, not made by the attempt that it names, or by one that is over
    RESULT = "result"  #: a result or exception that its runner didn't seal
    DOORBELL = "doorbell"  #: one that would have a worker take a run that it doesn't serve
    ENTRY = "entry"  #: a record, route, event, message or other entry that no release writes so: it was left out

    def times(self, count: int) -> str:
        """So many of them, in words."""
        if self is Rejected.ENTRY:
            return f"{count} malformed {'entry' if count == 1 else 'entries'}"
        return f"{count} {self}{'s' * (count > 1)}"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The number of rejections, and the time of the last one in seconds since the epoch."""

    count: int
    last: float


class Rejections(ABC):
    """Counts since the installation began."""

    @abstractmethod
    def note(self, what: Rejected) -> None:
        """Count one."""

    @abstractmethod
    def tallies(self) -> dict[Rejected, Tally]:
        """The counts of all that was ever refused."""


def count_rejection(rejections: Rejections, what: Rejected) -> None:
    """Count one if the server answers: no refusal depends on its being counted."""
    with suppress(ServerUnavailable, Malformed):
        rejections.note(what)


@contextmanager
def counting_broken_seals(rejections: Rejections, what: Rejected) -> Iterator[None]:
    """Count what isn't opened within since its seal is broken.

    Raises:
        SealBroken: as it came.
    """
    try:
        yield
    except SealBroken:
        count_rejection(rejections, what)
        raise
