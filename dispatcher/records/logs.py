"""Log lines of runs: what flows print and log.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: The stream of a line that stands for missing ones.
GAP = "gap"

#: Prefix of the streams of workers of a run's own cluster; a worker's name follows.
WORKER = "worker/"

#: Most characters of text that :meth:`Logs.tail` returns, where that is more than one line.
MOST_TAIL = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line that a flow printed or logged. ``number`` counts from 1 within an attempt.

    ``stream`` is ``stdout``, ``stderr``, ``log``, ``gap``, ``init/NAME`` of an init container that failed, or
    ``worker/NAME`` of a worker that was lost. In a gap, ``text`` says how many lines are missing, and ``number`` is
    that of the last one missing. The lines of a ``worker/NAME`` have growing numbers of their own.
    """

    attempt: int
    number: int
    time: float
    stream: str
    text: str
    level: str = ""

    @property
    def numbering(self) -> tuple[int, str]:
        """The attempt, and the stream if its lines are numbered on their own, else an empty text."""
        return self.attempt, self.stream if self.stream.startswith(WORKER) else ""


class Logs(ABC):
    """The lines of runs, in order."""

    @abstractmethod
    def append(self, run_id: str, lines: Sequence[Line]) -> None:
        """Add lines of one attempt. Lines whose number isn't higher than the last one of their numbering are
        dropped."""

    @abstractmethod
    def read(self, run_id: str, *, after: str = "", limit: int = 1000, block: float = 0.0) -> tuple[list[Line], str]:
        """Return lines behind cursor ``after``, and the new cursor; wait up to ``block`` seconds for the first."""

    @abstractmethod
    def tail(self, run_id: str, lines: int, *, attempt: int | None = None, gaps: bool = True) -> list[Line]:
        """Return the last lines of a run, oldest first, without reading those before.

        Args:
            run_id: the run.
            lines: most to return, at least one; fewer where their text is longer than :data:`MOST_TAIL`.
            attempt: only lines of this attempt, if they are among the last ten thousand of the run.
            gaps: include lines that stand for missing ones.
        """


def last_lines(backwards: Iterable[Line], lines: int, *, attempt: int | None, gaps: bool) -> list[Line]:
    """Return what :meth:`Logs.tail` does, of a run's lines from the last one backwards. For implementations."""
    selected: list[Line] = []
    size = 0
    for line in backwards:
        if attempt not in {None, line.attempt} or (line.stream == GAP and not gaps):
            continue
        size += len(line.text)
        if selected and size > MOST_TAIL:
            break
        selected.append(line)
        if len(selected) >= lines:
            break
    return selected[::-1]
