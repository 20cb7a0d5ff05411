"""The bell: the interface through which records ring doorbells. :mod:`dispatcher.broker.doorbell` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dispatcher.runs.change import Ring


class Bell(Protocol):
    """Rings doorbells; kept by :mod:`dispatcher.broker.doorbell`."""

    def message(self, ring: Ring) -> tuple[str, bytes] | None:
        """Key of the queue's list and the message to push there, if broker and records are one server; else None."""

    def publish(self, rings: Sequence[Ring]) -> None:
        """Publish through the broker, if :meth:`message` gives None. Never raises: a lost ring is rung again."""

    def depth(self, queue: str) -> int:
        """Count the messages that wait in the broker's list of ``queue``."""
