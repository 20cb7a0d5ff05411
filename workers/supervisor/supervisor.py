"""One supervisor per worker and container backend: a tick looks at all runs of the shards held, together."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from functools import partial

from backends.base import Backend, Observation
from dispatcher.errors import Permanent, Refused, SealBroken, Transient, UnknownRun
from dispatcher.failpoints import failpoint
from dispatcher.records.base import Records, Step
from dispatcher.runner.report import About, Report, attempt_token
from dispatcher.runs import indexes, transitions
from dispatcher.runs.record import Record
from workers.provisioning import Provisioner
from workers.supervisor.shards import Shards
from workers.supervisor.verdicts import judge

logger = logging.getLogger(__name__)


class Supervisor:
    """Watches the runs of one backend that hash into this worker's shards."""

    def __init__(self, provisioner: Provisioner, backend: Backend) -> None:
        self._provisioner = provisioner
        self._records: Records = provisioner.records
        self._backend = backend
        self._shards = Shards(self._records.leases, backend.name, provisioner.owner)
        self._ended: set[tuple[str, int]] = set()
        self.backend = backend.name

    def tick(self, supervisors: Iterable[str], dead: Collection[str]) -> None:
        """One round: shards, reports, infrastructure, leftovers. Safe to run twice, and beside other workers."""
        self._shards.share(supervisors, dead)
        for shard in self._shards.held:
            self._read_inbox(shard)
            self._look(shard)
        self._tear_down()

    @property
    def holders(self) -> frozenset[str]:
        """Ids of the workers that held shards of this backend at the last tick."""
        return self._shards.holders

    def leave(self) -> None:
        """Give the shards back."""
        self._shards.leave()

    def _read_inbox(self, shard: str) -> None:
        entries = self._records.inbox.read(shard)
        for _, entry in entries:
            try:
                self._act_on(entry)
                failpoint("inbox.acted", entry["run"])
            except (SealBroken, UnknownRun, Refused, KeyError, ValueError) as error:
                logger.warning("report refused: %s", error)
        if entries:
            self._records.inbox.drop(shard, until=entries[-1][0])
            failpoint("inbox.dropped")

    def _act_on(self, entry: dict[str, str]) -> None:
        record, _ = self._records.runs.get(entry["run"])
        report = Report.from_entry(entry, self._token(record))
        if report.attempt != record.attempt:
            raise Refused(f"attempt {report.attempt} of run {record.id} is closed")
        step: Step
        if report.about is About.ALIVE:
            return
        if report.about is About.SETTLED:
            step = partial(transitions.settle, epoch=record.epoch, outcome=report.outcome)
        elif report.about is About.DIED:
            step = partial(transitions.abandon, epoch=record.epoch, outcome=report.outcome)
        else:
            step = partial(transitions.finish, epoch=record.epoch, outcome=report.outcome, exit_call=report.exit_call)
        self._records.runs.update(record.id, step)

    def _token(self, record: Record) -> str:
        if record.request is None:
            raise Refused(f"attempt {record.attempt} of run {record.id} is closed")
        key = self._provisioner.keys.run_key(record.id, record.spec.key_id)
        return attempt_token(key, attempt=record.attempt, epoch=record.request["epoch"])

    def _look(self, shard: str) -> None:
        owned = [run_id for run_id, _ in self._records.runs.members(indexes.owned(shard), limit=100_000)]
        found = [record for record in self._records.runs.get_many(owned) if record is not None]
        for record in found:
            if record.handle is None:
                self._provisioner.create(record)
        watched = [record for record in found if record.handle is not None]
        seen = self._backend.poll([record.handle or {} for record in watched])
        now = self._records.runs.now()
        for record, observation in zip(watched, seen, strict=True):
            self._judge(record, observation, now)

    def _judge(self, record: Record, seen: Observation, now: float) -> None:
        mark = (record.id, record.attempt)
        verdict = judge(record, seen, now, ended_before=mark in self._ended)
        if verdict.step is not None:
            self._update(record.id, verdict.step)
            failpoint("watch.judged", record.id)
        if verdict.cancel:
            self._cancel(record)
        if seen.phase in {"ended", "gone"}:
            self._ended.symmetric_difference_update({mark})  # judged at the second look, then forgotten

    def _cancel(self, record: Record) -> None:
        """Ask for the infrastructure to go; the runner hears it, calls ``on_exit`` and reports, or it is seen gone."""
        try:
            self._backend.cancel(record.handle, (record.request or {}).get("body"))
            failpoint("watch.cancelled", record.id, lost=Transient)
        except (Permanent, Transient) as error:
            logger.warning("run %s can't be ended yet: %s", record.id, error)

    def _tear_down(self) -> None:
        left = self._records.runs.members(indexes.teardown(self._backend.name))
        for record in self._records.runs.get_many([run_id for run_id, _ in left]):
            for one in record.leftovers if record else ():
                try:
                    gone = self._backend.cancel(one["handle"], (one["request"] or {}).get("body"))
                    failpoint("teardown.asked", record.id if record else "", lost=Transient)
                except (Permanent, Transient) as error:
                    logger.warning("teardown of run %s stays open: %s", record.id if record else "", error)
                    continue
                if gone and record:
                    self._update(record.id, partial(transitions.torn_down, attempt=one["attempt"]))
                    failpoint("teardown.noted", record.id)

    def _update(self, run_id: str, step: Step) -> None:
        try:
            self._records.runs.update(run_id, step)
        except (Refused, UnknownRun) as error:
            logger.info("nothing to do: %s", error)
