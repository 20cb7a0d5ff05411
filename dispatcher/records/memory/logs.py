"""Log lines in this process."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.records.logs import Line, Logs, last_lines
from dispatcher.records.memory.shared import SharedState


class MemoryLogs(Logs):
    """Lists of lines; a cursor is a number as text."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._lines: dict[str, list[Line]] = {}
        self._last_numbers: dict[tuple[str, int, str], int] = {}

    def append(self, run_id: str, lines: Sequence[Line]) -> None:
        with self._shared.changed:
            for line in lines:
                key = (run_id, *line.numbering)
                if line.number > self._last_numbers.get(key, 0):
                    self._last_numbers[key] = line.number
                    self._lines.setdefault(run_id, []).append(line)
            self._shared.changed.notify_all()

    def read(self, run_id: str, *, after: str = "", limit: int = 1000, block: float = 0.0) -> tuple[list[Line], str]:
        start = int(after or 0)
        lines = self._shared.wait_for(lambda: self._lines.get(run_id, [])[start : start + limit], block)
        return lines, str(start + len(lines)) if lines else after

    def tail(self, run_id: str, lines: int, *, attempt: int | None = None, gaps: bool = True) -> list[Line]:
        with self._shared.changed:
            return last_lines(reversed(self._lines.get(run_id, [])), lines, attempt=attempt, gaps=gaps)

    def purge(self, run_id: str) -> None:
        """Drop the lines of a run."""
        self._lines.pop(run_id, None)
        for key in [key for key in self._last_numbers if key[0] == run_id]:
            del self._last_numbers[key]

    def count(self) -> int:
        """Count the runs, and the numberings of their lines."""
        return len(self._lines) + len(self._last_numbers)
