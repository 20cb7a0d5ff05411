"""The workers that a cluster wants, by name, and what became of them. Kept by the scheduler's process; knows no Dask.

A name stands for one worker. Once that worker has gone, its name is never used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dispatcher.runs.cluster import MOST_LOST, WorkerReport, first_names


class WorkerNames:
    """The names of one cluster.

    Args:
        minimum: workers at the start; the cluster is ready once so many have joined.
        changed: called with each new report.
    """

    def __init__(self, minimum: int, changed: Callable[[WorkerReport], None]) -> None:
        self._minimum = minimum
        self._changed = changed
        self._wanted = dict.fromkeys(first_names(minimum))
        self._next = minimum + 1
        self._connected: dict[str, None] = {}
        self._lost: list[str] = []
        self._ready = minimum == 0

    @property
    def wanted(self) -> set[str]:
        """Those that shall exist."""
        return set(self._wanted)

    @property
    def connected(self) -> set[str]:
        """Those that are connected to the scheduler."""
        return set(self._connected)

    @property
    def ready(self) -> bool:
        """True once the minimum has joined."""
        return self._ready

    def report(self) -> WorkerReport:
        """Return all of it, as it is now."""
        return WorkerReport(
            wanted=tuple(self._wanted), connected=tuple(self._connected), ready=self._ready, lost=tuple(self._lost)
        )

    def add(self, count: int) -> None:
        """Want so many more, under new names."""
        for _ in range(count):
            self._wanted[f"w{self._next}"] = None
            self._next += 1
        self._report()

    def drop(self, names: Iterable[str]) -> None:
        """Want these no longer."""
        for name in names:
            self._wanted.pop(name, None)
        self._report()

    def join(self, name: str) -> None:
        """Note that a worker has connected."""
        self._connected[name] = None
        self._ready = self._ready or len(self._connected) >= self._minimum
        self._report()

    def leave(self, name: str, *, asked: bool) -> None:
        """Note that a worker has gone. One that wasn't asked to counts as lost; its name is dropped, too."""
        self._connected.pop(name, None)
        self._wanted.pop(name, None)
        if not asked:
            self._lost = [*self._lost, name][-MOST_LOST:]
        self._report()

    def _report(self) -> None:
        self._changed(self.report())
