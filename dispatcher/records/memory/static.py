"""The register of static infrastructure in this process."""

from __future__ import annotations

from dispatcher.records.memory.shared import SharedState
from dispatcher.records.static import StaticObject, StaticObjects


class MemoryStaticObjects(StaticObjects):
    """Times of use by object, and by worker and object."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._used: dict[StaticObject, float] = {}
        self._noted: dict[tuple[str, StaticObject], float] = {}

    def expect(self, thing: StaticObject) -> None:
        with self._shared.changed:
            self._used[thing] = self._shared.clock()

    def note(self, thing: StaticObject, worker: str) -> None:
        with self._shared.changed:
            self._used[thing] = self._noted[worker, thing] = self._shared.clock()

    def age(self, thing: StaticObject, worker: str) -> float | None:
        with self._shared.changed:
            noted = self._noted.get((worker, thing))
            return None if noted is None else self._shared.clock() - noted

    def known(self) -> dict[StaticObject, float]:
        with self._shared.changed:
            now = self._shared.clock()
            return {thing: now - used for thing, used in self._used.items()}

    def forget(self, thing: StaticObject, *, unused_for: float) -> bool:
        with self._shared.changed:
            if self._shared.clock() - self._used.get(thing, 0.0) < unused_for:
                return False
            self._used.pop(thing, None)
            return True
