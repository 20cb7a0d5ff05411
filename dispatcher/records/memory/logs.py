"""Lines of runs in this process."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.records.logs import Line, Logs
from dispatcher.records.memory.shared import Shared


class MemoryLogs(Logs):
    """Lists of lines; a cursor is a number in text."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._lines: dict[str, list[Line]] = {}
        self._last: dict[tuple[str, int], int] = {}

    def append(self, run_id: str, lines: Sequence[Line]) -> None:
        with self._shared.changed:
            for line in lines:
                if line.number > self._last.get((run_id, line.attempt), 0):
                    self._last[run_id, line.attempt] = line.number
                    self._lines.setdefault(run_id, []).append(line)
            self._shared.changed.notify_all()

    def read(self, run_id: str, *, after: str = "", limit: int = 1000, block: float = 0.0) -> tuple[list[Line], str]:
        start = int(after or 0)
        found = self._shared.wait_for(lambda: self._lines.get(run_id, [])[start : start + limit], block)
        return found, str(start + len(found)) if found else after

    def purge(self, run_id: str) -> None:
        """Drop the lines of a run."""
        self._lines.pop(run_id, None)
        for key in [key for key in self._last if key[0] == run_id]:
            del self._last[key]

    def count(self) -> int:
        """Count the runs that have lines."""
        return len(self._lines) + len(self._last)
