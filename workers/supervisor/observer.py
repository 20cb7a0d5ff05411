"""Observation of infrastructure through a backend. Whatever it raises, a run that it can't observe is unknown."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backends.base import Backend, Handle, Observation, Phase
from dispatcher.errors import Permanent, Transient
from dispatcher.runs.record import Record
from dispatcher.support.log_throttle import LogThrottle
from dispatcher.support.tracebacks import message_of

logger = logging.getLogger(__name__)


class Observer:
    """Polls a backend.

    Args:
        backend: the one polled.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._throttle = LogThrottle(logger)

    def observe(self, handle: Handle | None) -> Observation | None:
        """Return the state of one attempt's infrastructure; None without a handle."""
        return None if handle is None else self._observe_one(handle)

    def observe_runs(self, records: Sequence[Record]) -> dict[str, Observation]:
        """Observe many runs in one call: run id → observation. If it fails, each is observed on its own, so that no
        run has another one's trouble."""
        try:
            observations = self._poll([record.handle or {} for record in records]) if records else []
        except (Transient, Permanent) as error:  # the service's trouble, not that of one handle
            self._throttle.warn(f"Can't observe the runs of backend {self._backend.name} now", error)
            observations = [_unknown(error)] * len(records)
        except Exception:
            observations = [self._observe_one(record.handle or {}) for record in records]
        return {record.id: observation for record, observation in zip(records, observations, strict=True)}

    def _observe_one(self, handle: Handle) -> Observation:
        try:
            (observation,) = self._poll([handle])
        except Exception as error:
            event = f"poll of backend {self._backend.name} failed; its run is unknown: {dict(handle)!a:.200}"
            self._throttle.warn(event, f"{type(error).__name__}: {message_of(error)}")
            logger.debug("poll failed", exc_info=True)
            return _unknown(error)
        return observation

    def _poll(self, handles: Sequence[Handle]) -> list[Observation]:
        """Return the backend's observations.

        Raises:
            TypeError: they aren't one observation per handle.
        """
        observations = self._backend.poll(handles)
        if len(observations) != len(handles) or not all(isinstance(item, Observation) for item in observations):
            raise TypeError(f"poll returned something else than {len(handles)} observations")
        return observations


def _unknown(error: Exception) -> Observation:
    return Observation(phase=Phase.UNKNOWN, reason=type(error).__name__, message=message_of(error))
