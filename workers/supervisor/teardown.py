"""Teardown of what ended attempts have left. It is open until the backend confirms it; its record notes why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from backends.base import Backend, Handle, Phase
from dispatcher.errors import Transient
from dispatcher.records.base import Records
from dispatcher.records.runs import Transition
from dispatcher.runs import indexes, infrastructure
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.record import Record
from dispatcher.support.failpoints import failpoint
from dispatcher.support.log_throttle import LogThrottle
from workers.error_isolation import ErrorIsolation
from workers.supervisor.backend_requests import BackendRequests
from workers.supervisor.crash_reports import CrashReports
from workers.supervisor.observer import Observer
from workers.supervisor.record_writer import RecordWriter

logger = logging.getLogger(__name__)

#: Seconds that a container gets to end by itself after its runner has reported the end.
LINGER = 5.0

#: Seconds between two requests to delete the same.
RETRY_INTERVAL = 1.0

#: Seconds after the end of an attempt from which on the reason that keeps its teardown open is noted in the record.
NOTE_REASON_AFTER = 30.0

#: Seconds until a container that is about to end is observed again, unless a change of it is reported.
LINGER_POLL_INTERVAL = 0.5

Leftover = Mapping[str, Any]


class Teardown:
    """Deletes what ended attempts of the shards held have left.

    Args:
        records: the records' indexes.
        writer: writes their records; its cache is of this class alone, and holds no records that may be written.
        backend: deletes.
        observer: of the backend.
        requests: made to the backend.
        reports: reads what infrastructure tells of a crash before it is deleted.
        is_needed: whether an attempt's (run id, number) infrastructure is still needed.
    """

    def __init__(
        self,
        records: Records,
        writer: RecordWriter,
        backend: Backend,
        observer: Observer,
        requests: BackendRequests,
        reports: CrashReports,
        *,
        is_needed: Callable[[str, int], bool],
    ) -> None:
        self._runs = records.runs
        self._writer = writer
        self._cache = writer.cache
        self._backend = backend
        self._observer = observer
        self._requests = requests
        self._reports = reports
        self._is_needed = is_needed
        self._index = indexes.teardown(backend.name)
        self._throttle = LogThrottle(logger)
        self._isolation = ErrorIsolation(logger)
        self._lingering: dict[str, float] = {}  # run → when it is observed again, monotonic

    def refresh(self, shards: Collection[str]) -> None:
        """Read the runs of these shards whose leftovers have changed."""
        numbers = {shard.rpartition("/")[2] for shard in shards}
        members = self._runs.members(self._index, limit=100_000)
        ours = [member for member in members if shard_of("", member[0]).rpartition("/")[2] in numbers]
        self._cache.refresh({self._index: ours})
        self._reports.retain({record.id for record in self._cache})
        at = time.monotonic()
        self._lingering = {run_id: until for run_id, until in self._lingering.items() if until > at}

    @property
    def complete(self) -> bool:
        """Return True if the last refresh has read all leftovers."""
        return self._cache.complete

    def handles(self) -> Iterator[tuple[str, Handle]]:
        """Iterate over the handles of all leftovers, each with its run's id."""
        for record in self._cache:
            for leftover in record.leftovers:
                if (handle := leftover.get("handle")) is not None:
                    yield record.id, handle

    def expedite(self, run_ids: Iterable[str]) -> None:
        """Observe the leftovers of these runs at the next tick: they have changed."""
        for run_id in run_ids:
            self._lingering.pop(run_id, None)

    def is_known(self, run_id: str, attempt: int) -> bool:
        """Return True if an attempt's leftovers are cached, and will be deleted here."""
        return infrastructure.needs_infrastructure(self._cache.get(run_id), attempt)

    def work(self, now: float) -> None:
        """Request the deletion of all leftovers that may go. ``now`` is the server's clock."""
        at = time.monotonic()
        for record in self._cache:
            if self._lingering.get(record.id, 0.0) > at or record.foreign:
                continue
            for leftover in record.leftovers:
                with self._isolation.run(record.id):
                    self._request_deletion(record, leftover, now)

    def _request_deletion(self, record: Record, leftover: Leftover, now: float) -> None:
        attempt = leftover["attempt"]
        key = ("teardown", record.id, attempt)
        if (
            not self._requests.is_due(key)
            or self._writer.shards.lease(_shard(leftover)) is None
            or self._is_needed(record.id, attempt)
            or self._reports.is_pending(record.id, attempt)
        ):
            return
        if self._is_about_to_end(leftover, now):
            self._lingering[record.id] = time.monotonic() + LINGER_POLL_INTERVAL
            return
        if self._reports.begin(record, leftover, _shard(leftover), now):
            return
        delete = partial(self._delete, record.id, leftover)
        self._requests.submit(key, delete, partial(self._handle_answer, record.id, attempt), pause=RETRY_INTERVAL)

    def _delete(self, run_id: str, leftover: Leftover) -> bool:
        request, claimed = (leftover["request"] or {}).get("body"), bool(leftover.get("claimed", True))
        confirmed = self._backend.discard(leftover["handle"], request, claimed=claimed)
        failpoint("teardown.asked", run_id, lost=Transient)
        return confirmed

    def _handle_answer(self, run_id: str, attempt: int, answer: Any) -> None:
        record = self._cache.get(run_id)
        leftovers = record.leftovers if record is not None else ()
        leftover = next((leftover for leftover in leftovers if leftover["attempt"] == attempt), None)
        if record is None or leftover is None or self._writer.shards.lease(_shard(leftover)) is None:
            return
        if answer is True:
            observation = self._observer.observe(leftover["handle"])
            times = observation.times if observation is not None else {}
            self._update(record, leftover, partial(infrastructure.torn_down, attempt=attempt, times=times))
            failpoint("teardown.noted", run_id)
        elif isinstance(answer, Exception):
            self._throttle.warn(f"Run {run_id}: its teardown stays open", answer)
            self._note_reason(record, leftover, str(answer))
        elif leftover.get("pending"):  # what kept it is over, and it is going
            self._update(record, leftover, partial(infrastructure.note_pending_teardown, attempt=attempt, why=""))

    def _note_reason(self, record: Record, leftover: Leftover, reason: str) -> None:
        if not leftover.get("pending") and "pending" not in reason:
            _, now = self._runs.get(record.id)
            if now - leftover.get("ended", now) < NOTE_REASON_AFTER:
                return
        step = partial(infrastructure.note_pending_teardown, attempt=leftover["attempt"], why=reason[:500])
        self._update(record, leftover, step)

    def _is_about_to_end(self, leftover: Leftover, now: float) -> bool:
        """Return True if it is about to end by itself, which shows its exit code and lets it send its last lines.

        What a runner has claimed and still seems to wait is seen late: it runs, or has ended meanwhile.
        """
        if not leftover.get("claimed") or now - leftover.get("ended", 0.0) >= LINGER:
            return False
        observation = self._observer.observe(leftover["handle"])
        if observation is None or observation.paused or observation.suspended:
            return False
        return observation.phase is Phase.WAITING or (observation.phase is Phase.RUNNING and observation.cause is None)

    def _update(self, record: Record, leftover: Leftover, step: Transition) -> None:
        update = partial(self._runs.update, record.id, step)
        after = self._writer.write(record.id, _shard(leftover), lambda lease: update(lease=lease))
        if after is not None:
            self._cache.put(after)


def _shard(leftover: Leftover) -> str:
    return str((leftover["handle"] or leftover["request"] or {}).get("shard", ""))
