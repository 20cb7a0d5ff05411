"""Observation of infrastructure through a backend."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backends.base import Backend, Handle, Observation
from dispatcher.runs.record import Record
from workers.error_isolation import ErrorIsolation

logger = logging.getLogger(__name__)


class Observer:
    """Polls a backend.

    Args:
        backend: the one polled.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._isolation = ErrorIsolation(logger)

    def observe(self, handle: Handle | None) -> Observation | None:
        """Return the state of one attempt's infrastructure; None without a handle."""
        return None if handle is None else self._backend.poll([handle])[0]

    def observe_runs(self, records: Sequence[Record]) -> dict[str, Observation]:
        """Observe many runs in one call: run id → observation. A run whose handle the backend can't read is left
        out."""
        try:
            observations = self._backend.poll([record.handle or {} for record in records]) if records else []
            return {record.id: observation for record, observation in zip(records, observations, strict=True)}
        except (LookupError, TypeError, ValueError, AttributeError):
            return self._observe_one_by_one(records)

    def _observe_one_by_one(self, records: Sequence[Record]) -> dict[str, Observation]:
        observations: dict[str, Observation] = {}
        for record in records:
            with self._isolation.run(record.id):
                [observations[record.id]] = self._backend.poll([record.handle or {}])
        return observations
