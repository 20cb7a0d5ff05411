"""Users of the server, one for each attempt in a container; the interface stands beside those of
:mod:`dispatcher.records.base`, under the same contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AttemptScope:
    """The reach of the user of an attempt: its run and the run's own keys, the claim of the attempt, the shared
    ``blobs`` (digests) that the run refers to, and the inbox of ``shard``, to which it only adds."""

    run_id: str
    attempt: int
    shard: str
    blobs: tuple[str, ...] = ()


class Users(ABC):
    """Users that a worker makes. A server that was restarted, or another one in its place, knows none of them."""

    @abstractmethod
    def make(self, reach: AttemptScope, password: str) -> str:
        """Make the user of an attempt, or make it again as it was; its name.

        Args:
            reach: what it may reach.
            password: long and random.

        Raises:
            ServerUnavailable: no answer, or our own user may not make users.
        """

    @abstractmethod
    def known(self) -> list[tuple[str, int]]:
        """Run and attempt of each user of this installation that the server knows.

        Raises:
            ServerUnavailable: no answer, or our own user may not ask.
        """

    @abstractmethod
    def remove(self, attempts: Iterable[tuple[str, int]]) -> None:
        """Remove the users of these attempts (run id, number), and end their connections. One that isn't there is fine.

        Raises:
            ServerUnavailable: no answer, or our own user may not remove users.
        """

    @abstractmethod
    def allowed(self) -> bool:
        """Return True if our own user may make users: one that can do nothing is made and removed.

        Raises:
            ServerUnavailable: no answer.
        """
