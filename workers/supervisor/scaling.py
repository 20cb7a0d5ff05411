"""Workers of runs' own clusters: created, deleted and accounted for as the runners report what they want.

The runner reports, the supervisor decides: :mod:`workers.supervisor.scale_decision` which workers to create and to
delete, :mod:`workers.supervisor.cluster_workers` which have ended. Requests run on threads; records are written on the
supervisor's thread.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from backends.base import Backend, Request, Scaled
from dispatcher.errors import Permanent, Refused, SealBroken, Transient, UnknownRun
from dispatcher.runs import cluster_steps, transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.runs.wait import Wait
from dispatcher.support.failpoints import failpoint
from workers.error_isolation import ErrorIsolation
from workers.execution.provisioning import as_permanent
from workers.supervisor.backend_requests import BackendRequests
from workers.supervisor.cluster_workers import MOST_UNJOINED, ClusterWorkers, WorkerEnd
from workers.supervisor.heartbeats import Heartbeats
from workers.supervisor.judgement import overdue
from workers.supervisor.record_verifier import RecordVerifier
from workers.supervisor.record_writer import RecordWriter
from workers.supervisor.scale_decision import decide
from workers.supervisor.worker_logs import OUTCOME_LINES, WorkerLogs

logger = logging.getLogger(__name__)

#: Workers created or deleted by one request, at most.
BATCH = 25

#: Seconds between two notes in a record, so that thousands of workers don't cost as many writes and events.
NOTE_INTERVAL = 1.0

#: Seconds within which a runner has reported again: until then, a supervisor that is new to a run doesn't know whether
#: its cluster has become ready.
REPORTED_WITHIN = 15.0

#: Seconds between two requests for workers of one attempt; after a refusal for good, of a cluster that computes.
CREATE_INTERVAL, REFUSED_INTERVAL = 0.1, 30.0


#: Causes that are noted of an attempt that is being ended.
_ENDING = frozenset({Cause.PREEMPTED, Cause.EVICTED, Cause.SPOT_INTERRUPTED, Cause.DEADLINE})


class Scaling:
    """Scales the clusters of one backend's runs. For the supervisor's thread alone.

    Args:
        backend: creates and deletes workers, if its attempts have any.
        verifier: gives the stored request of a run.
        writer: of the runs' records.
        heartbeats: what runners have reported of their workers.
        requests: made to the backend.
        owner: the id of this worker.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        backend: Backend,
        verifier: RecordVerifier,
        writer: RecordWriter,
        heartbeats: Heartbeats,
        requests: BackendRequests,
        *,
        owner: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend if isinstance(backend, Scaled) else None
        self._verifier = verifier
        self._writer = writer
        self._cache = writer.cache
        self._heartbeats = heartbeats
        self._requests = requests
        self._owner = owner
        self._clock = clock
        self._logs = WorkerLogs(verifier.records.logs, requests, verifier.now)
        self._clusters: dict[str, ClusterWorkers] = {}
        self._due: dict[str, float] = {}  # run → when it is looked at again, monotonic
        self._isolation = ErrorIsolation(logger)

    @property
    def next_in(self) -> float:
        """Seconds until a run is looked at again; infinite if none is due."""
        return max(0.0, min(self._due.values(), default=math.inf) - self._clock())

    def retain(self, runs: Collection[str]) -> None:
        """Forget all other runs."""
        self._clusters = {run_id: cluster for run_id, cluster in self._clusters.items() if run_id in runs}
        self._due = {run_id: at for run_id, at in self._due.items() if run_id in runs}

    def explains_losses(self, record: Record) -> bool:
        """Return True if the reason of a loss of a run's workers may be found soon, and an event will tell of it."""
        cluster, report = self._clusters.get(record.id), self._heartbeats.workers_of(record)
        if cluster is None or cluster.attempt != record.attempt or report is None:
            return False
        return cluster.has_unexplained(report)

    def work(self, records: Iterable[Record], now: float, ended: Collection[str] = ()) -> None:
        """Scale the clusters of these runs, of those whose runners have reported, and of those that are due.

        Args:
            records: the runs, after all reports were read.
            now: the server's clock.
            ended: ids of the runs whose flow has ended, whatever their record says.
        """
        reported, at = self._heartbeats.take_reported(), self._clock()
        if self._backend is None:
            return
        due = {run_id for run_id, until in self._due.items() if until <= at}
        self._due = {run_id: until for run_id, until in self._due.items() if run_id not in due}
        for run_id in {record.id for record in records} | due | reported:
            record = self._cache.get(run_id)
            if record is None or record.workers is None or self._writer.shards.lease(record.owner) is None:
                continue
            with self._isolation.run(run_id):
                over = run_id in ended or record.settled_at is not None
                self._scale(self._backend, record, now, over=over)

    def _scale(self, backend: Scaled, record: Record, now: float, *, over: bool) -> None:
        if record.state is not State.RUNNING or record.handle is None or record.workers is None:
            return
        if record.workers.failure is not None or record.last_cause in _ENDING or overdue(record, now):
            return  # it is being ended, with all its workers
        report = self._heartbeats.workers_of(record)
        if (late := cluster_steps.late_cluster(record, now)) is not None:
            if report is not None or self._heartbeats.silence(record.id) > REPORTED_WITHIN:
                self._fail(record, late)
            return
        cluster = self._cluster(backend, record)
        if cluster is None:
            return
        try:
            states = backend.workers(record.handle)
        except Transient as error:
            logger.debug("Run %s: its workers aren't known now: %s", record.id, error)
            return
        for end in cluster.update(report, states, self._clock(), closing=over):
            self._logs.read(backend, record, end, partial(self._account, record.id, cluster))
        decision = decide(cluster.view(ready=record.workers.ready, growing=not over))
        self._create(backend, record, cluster, decision.create)
        self._delete(backend, record, cluster, decision.delete)
        self._note(record, cluster)

    def _cluster(self, backend: Scaled, record: Record) -> ClusterWorkers | None:
        """Return what is known of the workers of a run's attempt; None if it has none, or isn't open any more."""
        cluster = self._clusters.get(record.id)
        if cluster is None or cluster.attempt != record.attempt:
            request = self._request(record)
            if request is None or record.workers is None:
                return None
            first, most = backend.first_workers(request), backend.max_workers(request)
            cluster = ClusterWorkers(record.attempt, first=first, most=most, state=record.workers)
            self._clusters[record.id] = cluster
        return cluster

    def _request(self, record: Record) -> Request | None:
        """Return the stored request of a run's attempt; None if that isn't open any more. A forged one ends the run."""
        try:
            return self._verifier.request(record)
        except SealBroken as error:
            step = partial(transitions.refuse, reason="SealBroken", message=str(error))
            self._writer.update(record, step)
        except (Refused, UnknownRun) as error:
            logger.debug("Nothing to scale: %s", error)
            self._cache.drop(record.id)
        return None

    def _create(self, backend: Scaled, record: Record, cluster: ClusterWorkers, names: Sequence[str]) -> None:
        key = ("creation of workers", record.id, record.attempt)
        if not names or not self._requests.is_due(key) or self._clock() < cluster.refused_until:
            return
        request = self._request(record)  # read now: the attempt may have ended
        if request is None or record.handle is None:
            return
        batch = names[:BATCH]
        cluster.requested(batch, self._clock())
        call = partial(self._send, backend, record, request, batch)
        self._requests.submit(key, call, partial(self._created, record.id, cluster, batch), pause=CREATE_INTERVAL)

    @staticmethod
    def _send(backend: Scaled, record: Record, request: Request, names: Sequence[str]) -> None:
        backend.create_workers(record.handle or {}, request, names)
        failpoint("scale.created", record.id, lost=Transient)

    def _created(self, run_id: str, cluster: ClusterWorkers, names: Sequence[str], answer: Any) -> None:
        """Handle the answer to a creation."""
        failed = isinstance(answer, Exception)
        cluster.requested(names, self._clock(), failed=failed)
        cluster.refusal = None
        record = self._current(run_id, cluster)
        if record is None or record.workers is None:
            return
        if not failed:
            self._look_again(run_id, CREATE_INTERVAL)
            return
        if isinstance(answer, Transient):
            logger.debug("Run %s: the creation of its workers will be repeated: %s", run_id, answer)
            self._look_again(run_id, answer.retry_in)
            cluster.refusal = None if answer.cause is None else Wait.of(answer.cause, "", str(answer))
            return
        error = answer if isinstance(answer, Permanent) else as_permanent(answer, record, "create_workers", self._owner)
        if record.workers.ready:  # it computes with the workers that it has
            cluster.refusal = Wait.of(error.cause, error.reason, str(error))
            cluster.refused_until = self._clock() + REFUSED_INTERVAL
            self._look_again(run_id, REFUSED_INTERVAL)
        else:
            self._fail(record, Outcome(cause=error.cause, reason=error.reason, message=str(error)))

    def _delete(self, backend: Scaled, record: Record, cluster: ClusterWorkers, names: Sequence[str]) -> None:
        key = ("deletion of workers", record.id, record.attempt)
        if names and record.handle is not None and self._requests.is_due(key):
            batch = names[:BATCH]
            cluster.deleted(batch)
            self._requests.submit(key, partial(backend.delete_workers, record.handle, batch))

    def _account(self, run_id: str, cluster: ClusterWorkers, end: WorkerEnd, lines: Sequence[str]) -> None:
        """Count the loss of a worker whose last lines were read, and end the attempt if no worker can be had."""
        loss = cluster.account(end)
        record = self._current(run_id, cluster)
        if record is None:
            return
        self._look_again(run_id, 0.0)
        logger.info("Run %s: %s", run_id, loss.text)
        if self._writer.shards.lease(record.owner) is not None:
            self._logs.store(record, loss, cluster.lost, lines)
        hopeless = end.hopeless and record.awaits_workers
        if hopeless or cluster.unjoined >= MOST_UNJOINED:
            row = "" if hopeless else f"{cluster.unjoined} workers in a row ended before they joined, the last one: "
            outcome = Outcome(
                cause=loss.cause,
                reason=loss.reason,
                message=f"{row}{loss.text}",
                exit_code=loss.exit_code,
                log_tail=tuple(lines[-OUTCOME_LINES:]),
            )
            self._fail(record, outcome)
            self._note(record, cluster, at_once=True)

    def _fail(self, record: Record, outcome: Outcome) -> None:
        """Have the attempt ended with an outcome: the supervisor's next look at it deletes its infrastructure."""
        self._writer.update(record, partial(cluster_steps.fail_cluster, attempt=record.attempt, outcome=outcome))

    def _note(self, record: Record, cluster: ClusterWorkers, *, at_once: bool = False) -> None:
        """Note in the record what is known of the workers; unless ``at_once``, every :data:`NOTE_INTERVAL` seconds."""
        trouble = cluster.trouble()
        step = partial(cluster_steps.note_worker_wait, attempt=record.attempt, wait=trouble)
        self._writer.update(self._cache.get(record.id) or record, step)  # it refuses where the cluster is ready
        record, at = self._cache.get(record.id) or record, self._clock()
        before = record.workers
        if before is None:
            return
        state = cluster.state(before)
        news = cluster.news(trouble, at) if state.ready else None
        if state == before and not cluster.losses and news is None:
            return
        at_once = at_once or record.settled_at is not None or state.ready is not before.ready
        if not at_once and cluster.noted_at is not None and at - cluster.noted_at < NOTE_INTERVAL:
            self._look_again(record.id, cluster.noted_at + NOTE_INTERVAL - at)
            return
        losses, cluster.losses, cluster.noted_at = cluster.losses, [], at
        if news is not None:
            cluster.told(news, at)
        note = partial(cluster_steps.note_workers, attempt=record.attempt, workers=state, losses=losses, trouble=news)
        self._writer.update(record, note)

    def _current(self, run_id: str, cluster: ClusterWorkers) -> Record | None:
        """Return the cached record of a run; None if its attempt isn't that of ``cluster`` any more."""
        record = self._cache.get(run_id)
        return record if record is not None and record.attempt == cluster.attempt else None

    def _look_again(self, run_id: str, seconds: float) -> None:
        self._due[run_id] = min(self._clock() + seconds, self._due.get(run_id, math.inf))
