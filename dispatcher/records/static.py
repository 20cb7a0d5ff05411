"""The register of static infrastructure: what workers set up for many runs, such as the Secret of an image registry.

A backend may not be allowed to list what it has created, so each name is noted here before it is used, and
``dispatcher gc`` deletes by these names. The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

#: Most characters of a name.
LONGEST = 1000


@dataclass(frozen=True, kw_only=True)
class StaticObject:
    """One object of a backend in one of its places; ``name`` is unique there."""

    backend: str
    place: str
    name: str


class StaticObjects(ABC):
    """The static objects of an installation, each with the time of its last use by the server's clock."""

    @abstractmethod
    def expect(self, thing: StaticObject) -> None:
        """Note an object that is about to be created, as used now."""

    @abstractmethod
    def note(self, thing: StaticObject, worker: str) -> None:
        """Note that a worker has created an object, or has found that it exists; also as used now."""

    @abstractmethod
    def age(self, thing: StaticObject, worker: str) -> float | None:
        """Return the seconds since a worker last noted an object; None if it hasn't within the last hour."""

    @abstractmethod
    def known(self) -> dict[StaticObject, float]:
        """Return all objects, each with the seconds since its last use."""

    @abstractmethod
    def forget(self, thing: StaticObject, *, unused_for: float) -> bool:
        """Remove an object; return False, and do nothing, if it was used within so many seconds."""
