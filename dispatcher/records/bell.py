"""The bell, by which records ring doorbells. :mod:`dispatcher.broker.doorbell` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dispatcher.runs.change import Ring


class Bell(Protocol):
    """Sends doorbells to the broker's queues."""

    def message(self, ring: Ring) -> tuple[str, bytes] | None:
        """Return the key of the queue's list and the message to push there; None if the broker is another server."""

    def publish(self, rings: Sequence[Ring]) -> None:
        """Publish through the broker, if :meth:`message` gives None. Never raises: the reconciler rings again."""

    def depth(self, queue: str) -> int:
        """Count the messages that wait in the broker's list of ``queue``."""
