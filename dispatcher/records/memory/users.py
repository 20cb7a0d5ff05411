"""Users of attempts in this process. Nobody connects here, so they are only listed."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.records.memory.shared import SharedState
from dispatcher.records.users import AttemptScope, Users


class MemoryUsers(Users):
    """Scopes by run id and attempt."""

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._users: dict[tuple[str, int], AttemptScope] = {}

    def make(self, scope: AttemptScope, password: str) -> str:
        with self._shared.changed:
            self._users[scope.run_id, scope.attempt] = scope
        return f"{scope.run_id}:{scope.attempt}"

    def known(self) -> list[tuple[str, int]]:
        with self._shared.changed:
            return list(self._users)

    def remove(self, attempts: Iterable[tuple[str, int]]) -> None:
        with self._shared.changed:
            for attempt in attempts:
                self._users.pop(attempt, None)

    def allowed(self) -> bool:
        return True
