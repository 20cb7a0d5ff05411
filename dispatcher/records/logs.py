"""Log lines of runs. Rules common to all interfaces: :mod:`dispatcher.records.base`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line that a flow printed or logged. ``number`` counts from 1 within an attempt.

    ``stream`` is ``stdout``, ``stderr``, ``log``, or ``gap`` (then ``text`` says how many lines are missing, and
    ``number`` is the last missing one's).
    """

    attempt: int
    number: int
    time: float
    stream: str
    text: str
    level: str = ""


class Logs(ABC):
    """The lines of runs, in order."""

    @abstractmethod
    def append(self, run_id: str, lines: Sequence[Line]) -> None:
        """Add lines of one attempt; a line whose number isn't higher than the last of its attempt is dropped."""

    @abstractmethod
    def read(self, run_id: str, *, after: str = "", limit: int = 1000, block: float = 0.0) -> tuple[list[Line], str]:
        """Lines behind cursor ``after``, and the new cursor; waits up to ``block`` seconds for the first."""
