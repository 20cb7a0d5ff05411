"""Users of attempts in this process: nobody connects, so only who is known."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.records.memory.shared import Shared
from dispatcher.records.users import AttemptScope, Users


class MemoryUsers(Users):
    """A mapping."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._users: dict[tuple[str, int], AttemptScope] = {}

    def make(self, reach: AttemptScope, password: str) -> str:
        with self._shared.changed:
            self._users[reach.run_id, reach.attempt] = reach
        return f"{reach.run_id}:{reach.attempt}"

    def known(self) -> list[tuple[str, int]]:
        with self._shared.changed:
            return list(self._users)

    def remove(self, attempts: Iterable[tuple[str, int]]) -> None:
        with self._shared.changed:
            for attempt in attempts:
                self._users.pop(attempt, None)

    def allowed(self) -> bool:
        return True
