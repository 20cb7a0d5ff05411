"""The facts of a run that its submitter gave, and its times. Base of :class:`~dispatcher.client.run.Run` alone."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime

from dispatcher.runs.record import Record
from dispatcher.support.durations import utc


class RunFacts:
    """Facts of a run as attributes. What never changes is read from the server once, the rest each time.

    Raises:
        UnknownRun: its retention is over.
        ServerUnavailable: the server can't be reached.
    """

    _record: Record | None

    @property
    def flow(self) -> str:
        """The name of its flow."""
        return self._known().spec.flow

    @property
    def name(self) -> str:
        """Its own name, if it was given one; else its flow's."""
        return self._known().spec.options.name or self.flow

    @property
    def tags(self) -> tuple[str, ...]:
        """The words to search it by."""
        return self._known().spec.tags

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its environment."""
        return tuple(self._known().spec.labels)

    @property
    def created(self) -> datetime:
        """When it was submitted, in UTC by the server's clock."""
        return utc(self._known().created_at)

    @property
    def attempt(self) -> int:
        """The number of the current attempt, from 1, read from the server."""
        return self._read().attempt

    @property
    def started(self) -> datetime | None:
        """When the current attempt started, in UTC, read from the server; None before that."""
        return utc(self._read().started_at)

    @property
    def ended(self) -> datetime | None:
        """When it ended, in UTC, read from the server; None before that."""
        return utc(self._read().ended_at)

    @abstractmethod
    def _read(self) -> Record:
        """Read the record from the server, unless it has ended."""

    def _known(self) -> Record:
        """Return the record as last read, for what never changes."""
        return self._record or self._read()
