"""Users of the server, one for each attempt in a container.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AttemptScope:
    """The keys that the user of an attempt may reach.

    These are the run's own keys, the claim of the attempt, the shared ``blobs`` (digests) that the run refers to, and
    the inbox of ``shard``, to which it may only add.
    """

    run_id: str
    attempt: int
    shard: str
    blobs: tuple[str, ...] = ()


class Users(ABC):
    """Users that a worker creates. They are gone when the server restarts or another one takes its place."""

    @abstractmethod
    def make(self, scope: AttemptScope, password: str) -> str:
        """Create the user of an attempt, or recreate it with the same rights; return its name.

        Args:
            scope: the keys it may reach.
            password: long and random.

        Raises:
            ServerUnavailable: no answer, or our own user may not create users.
        """

    @abstractmethod
    def known(self) -> list[tuple[str, int]]:
        """Return run id and attempt of each user of this installation on the server.

        Raises:
            ServerUnavailable: no answer, or our own user may not list users.
        """

    @abstractmethod
    def remove(self, attempts: Iterable[tuple[str, int]]) -> None:
        """Remove the users of these attempts (run id, number), and close their connections. Missing ones are ignored.

        Raises:
            ServerUnavailable: no answer, or our own user may not remove users.
        """

    @abstractmethod
    def allowed(self) -> bool:
        """Return True if our own user may create users. Tries it with a user that has no rights, and removes that.

        Raises:
            ServerUnavailable: no answer.
        """
