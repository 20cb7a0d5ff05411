"""The register of workers in this process."""

from __future__ import annotations

from dispatcher.records.memory.shared import SharedState
from dispatcher.records.workers import WorkerInfo, Workers
from dispatcher.runs import indexes


class MemoryWorkers(Workers):
    """Dictionaries by worker id."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._infos: dict[str, WorkerInfo] = {}
        self._beats: dict[str, int] = {}
        self._last_beats: dict[str, float] = {}

    def announce(self, info: WorkerInfo) -> None:
        with self._shared.changed:
            self._infos[info.id] = info
            self._beats.setdefault(info.id, 0)
            self._last_beats[info.id] = self._shared.clock()

    def beat(self, worker_id: str) -> bool:
        with self._shared.changed:
            if worker_id not in self._infos:
                return False
            self._beats[worker_id] += 1
            self._last_beats[worker_id] = self._shared.clock()
            return True

    def beats(self) -> dict[str, int]:
        with self._shared.changed:
            return dict(self._beats)

    def live(self, *, within: float = 30.0) -> list[WorkerInfo]:
        with self._shared.changed:
            oldest = self._shared.clock() - within
            return [info for name, info in self._infos.items() if self._last_beats[name] >= oldest]

    def remove(self, worker_id: str) -> bool:
        with self._shared.changed:
            if self._shared.indexes.get(indexes.owned(worker_id)):
                return False
            for register in (self._infos, self._beats, self._last_beats):
                register.pop(worker_id, None)
            return True

    def watch(self, worker_id: str) -> None:
        """List a worker that claimed a run, even if it was removed, so that its heartbeats are observed."""
        self._beats.setdefault(worker_id, 0)
