"""Runs that a worker owns by its index, and that none of its processes runs. For its monitor alone.

Their end wasn't recorded, or the death of their process wasn't noticed. Anybody who may write to the server may also
add to the index, so a tick reads only part of a long one: portions, for a fraction of a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from dispatcher.records.base import Records
from dispatcher.records.rejections import Rejected, count_rejection
from dispatcher.records.runs import PORTION as RECORDS_AT_ONCE
from dispatcher.runs import indexes, use
from dispatcher.runs.record import Record
from workers.misplaced import MisplacedRuns
from workers.pool.death import Death, elsewhere
from workers.pool.holder_names import HolderNames
from workers.pool.processes import BusyProcesses
from workers.pool.termination import pid_of

#: Owned runs whose ids are read at once. A worker hardly owns more.
PORTION = 200

#: Seconds after which a search goes on at the next tick.
BUDGET = 0.25

#: Deaths that one search returns: recording them takes longer than finding them.
MOST_DEATHS = 50

#: Absent runs remembered from one look to the next.
MOST_ABSENT = 1000


@dataclass(frozen=True, kw_only=True)
class ProcessView:
    """The pool and the records, as the monitor knows them when it searches.

    ``read`` has the records of busy processes, by run id; ``dying`` are the runs whose deaths aren't recorded yet, and
    ``alive`` the pids of the pool.
    """

    read: Mapping[str, Record | None]
    dying: Collection[str]
    alive: Collection[int]


class AbsentRuns:
    """Finds absent runs, and adopts runs whose living process Celery has forgotten.

    Args:
        worker: the id of this worker.
        busy: its processes.
        holder_names: which tell whether a record's holder is genuine.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        worker: str,
        busy: BusyProcesses,
        holder_names: HolderNames,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = indexes.owned(worker)
        self._busy = busy
        self._holder_names = holder_names
        self._clock = clock
        self._skip = 0  # members of the index that were looked at in this turn, and stay there
        self._turn = 0
        self._absent: dict[str, int] = {}  # run that was absent at its last look → the turn of that look
        self._misplaced: MisplacedRuns | None = None

    def find(self, records: Records, view: ProcessView) -> list[Death]:
        """Return the deaths of runs that were absent at two looks in a row."""
        misplaced = self._misplaced = self._misplaced or MisplacedRuns(records)
        end, deaths = self._clock() + BUDGET, list[Death]()
        while len(deaths) < MOST_DEATHS:
            members = [run_id for run_id, _ in records.runs.members(self._index, limit=PORTION, skip=self._skip)]
            stay = 0
            for record in self._records(records, members, view):
                if misplaced.note(self._index, record):
                    continue
                stay += 1
                if self._is_absent(records, record, view) and (death := self._death(records, record)):
                    deaths.append(death)
            misplaced.remove()
            self._skip += stay
            if len(members) < PORTION:
                self._begin_turn()
                break
            if self._clock() >= end:
                break
        return deaths

    def _records(self, records: Records, members: list[str], view: ProcessView) -> Iterator[Record]:
        """Yield the records of members, few at once. Members without a readable record are removed."""
        for first in range(0, len(members), RECORDS_AT_ONCE):
            ids = members[first : first + RECORDS_AT_ONCE]
            unread = [run_id for run_id in ids if run_id not in view.read]
            by_id = {**view.read, **dict(zip(unread, records.runs.get_many(unread) if unread else [], strict=True))}
            if gone := [run_id for run_id in ids if by_id[run_id] is None]:
                records.runs.leave(self._index, gone, unreadable=True)
            yield from (record for run_id in ids if (record := by_id[run_id]) is not None)
            del by_id  # before the next are read

    def _begin_turn(self) -> None:
        """Begin again with the first member. Runs that weren't seen in this turn are forgotten."""
        self._absent = {run_id: turn for run_id, turn in self._absent.items() if turn == self._turn}
        self._turn += 1
        self._skip = 0

    def _is_absent(self, records: Records, record: Record, view: ProcessView) -> bool:
        """Return True if no process runs a run. One that a living process runs after all is adopted."""
        running = {(process.pid, process.run_id) for process in self._busy.all()}
        away = elsewhere(record)  # any process of this worker may be requesting its infrastructure
        pid = 0 if away else pid_of(record.holder)
        busy = record.id in {run_id for _, run_id in running} if away else (pid, record.id) in running
        absent = not (pid is None or busy or record.id in view.dying or record.foreign)
        if absent and pid and pid in view.alive and self._is_running(records, record, pid):
            self._busy.add(pid, record.id, adopted=True)
            absent = False
        if not absent:
            self._absent.pop(record.id, None)
        return absent

    def _death(self, records: Records, record: Record) -> Death | None:
        """Return the death of an absent run if this is the second look; it is counted if the run is a forged one."""
        if record.id not in self._absent:
            if len(self._absent) < MOST_ABSENT:
                self._absent[record.id] = self._turn
            return None
        del self._absent[record.id]
        if records.runs.vet(record, records.runs.now()):
            count_rejection(records.rejections, Rejected.RUN)
        pid = 0 if elsewhere(record) else pid_of(record.holder)
        return Death(run_id=record.id, pid=pid or 0, reason=None, status=None)

    def _is_running(self, records: Records, record: Record, pid: int) -> bool:
        """Return True if a living process runs the run: Celery forgot it over a lost connection.

        A record alone doesn't prove that: whoever wrote it could have the process killed.
        """
        return (
            self._busy.may_run(pid, record.id)
            and self._holder_names.is_authentic(record.holder, record.id)
            and not records.runs.vet(record, records.runs.now())
            and records.runs.used(record.id, record.spec.day) in use.begun(record)
        )
