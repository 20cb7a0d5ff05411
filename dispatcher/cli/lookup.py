"""Lookups for commands: a run by its id or the end of it or its age, its record and result. Used by commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.cli.short_ids import AMONG, shortened
from dispatcher.cli.terminal import echo, print_result
from dispatcher.errors import InvalidInput, UnknownRun, UnreadableRun
from dispatcher.inspection.as_json import run_json
from dispatcher.inspection.holders import shard_holders
from dispatcher.inspection.queues import waits
from dispatcher.records.logs import Line
from dispatcher.records.query import Query
from dispatcher.runs import indexes
from dispatcher.runs.record import Record
from dispatcher.runs.states import TERMINAL
from dispatcher.runs.value import Value
from dispatcher.support.escaping import shown
from dispatcher.support.ids import is_run_id

if TYPE_CHECKING:
    from dispatcher.client.client import Dispatcher
    from dispatcher.client.run import Run

#: Fewest characters of an id's end that are looked up.
_MIN_SUFFIX = 4

#: The newest run, or one that was submitted so many runs before.
_LATEST = re.compile(r"@last(?:-([0-9]{1,6}))?")

#: The indexes that hold exactly the runs of one criterion.
_INDEXES: Mapping[str, Callable[[Any], str]] = {
    "state": indexes.by_state, "label": indexes.by_label, "flow": indexes.by_flow, "tag": indexes.by_tag,
}  # fmt: skip
#: Lines of log that ``show`` prints.
_TAIL = 20


def find(client: Dispatcher, text: str) -> Run[Any]:
    """Return the run whose id equals or ends with ``text``, or that ``@last``, ``@last-1`` … name.

    Raises:
        UnknownRun: there is none.
        InvalidInput: there are several.
    """
    if (latest := _LATEST.fullmatch(text)) is not None:
        return _latest(client, int(latest[1] or 0), text)
    try:
        return client.get(text)
    except UnreadableRun:
        raise
    except UnknownRun:
        if len(text) < _MIN_SUFFIX or not is_run_id(text):
            raise
    matching = [run_id for run_id in _newest(client, AMONG) if run_id.endswith(text)]
    if not matching:
        raise UnknownRun(f"no run id equals or ends with {shown(text)}, or the run's retention is over")
    if len(matching) > 1:
        raise InvalidInput(
            f"run {shown(text)}: {len(matching)} run ids end with it; write more characters: {', '.join(matching[:3])}"
        )
    return client.get(matching[0])


def _latest(client: Dispatcher, back: int, text: str) -> Run[Any]:
    newest = _newest(client, back + 1)
    if len(newest) <= back:
        raise UnknownRun(f"run {text}: only {len(newest)} runs are kept")
    return client.get(newest[back])


def _newest(client: Dispatcher, limit: int) -> list[str]:
    """Return the ids of the newest runs, newest first."""
    return [run_id for run_id, _ in client.records.runs.members(indexes.ALL, limit=limit, highest_first=True)]


def find_many(client: Dispatcher, *, limit: int | None, **filters: Any) -> list[Record]:
    """Return matching runs, newest first; with a limit, one more than that if there are more."""
    return list(client.records.runs.find(Query(**filters), limit=None if limit is None else limit + 1))


def short_ids(client: Dispatcher, records: Sequence[Record]) -> Mapping[str, str]:
    """Return the short ids of runs, by which :func:`find` finds them."""
    return shortened([record.id for record in records], _newest(client, AMONG))


def total(client: Dispatcher, filters: Mapping[str, Any]) -> int | None:
    """Return how many runs match; None if that isn't known without reading them all."""
    asked = {name: value for name, value in filters.items() if value is not None}
    if not asked:
        return client.records.runs.count(indexes.ALL)
    (name, value), *others = asked.items()
    if others or name not in _INDEXES or (name == "state" and value not in TERMINAL):
        return None
    return client.records.runs.count(_INDEXES[name](value))


def record_of(client: Dispatcher, run: Run[Any]) -> Record:
    """Return the run's current record."""
    return client.records.runs.get(run.id)[0]


@dataclass(frozen=True)
class RunStatus:
    """Facts of open runs beside their records: why each waits, by id, and the holders of shards, by shard."""

    waits: Mapping[str, str]
    holders: Mapping[str, str]

    def json(self, record: Record) -> dict[str, Any]:
        """Return a run's JSON."""
        return run_json(record, waiting=self.waits[record.id], holder=self.holders.get(record.owner))


def status_of(client: Dispatcher, *records: Record) -> RunStatus:
    """Look up why runs wait, and which workers watch them."""
    now = client.records.runs.now() if any(not record.terminal for record in records) else 0.0
    holders = shard_holders(client.records, records)
    return RunStatus(waits(client.records, records, now, holders=holders), holders)


def waiting(client: Dispatcher, run: Run[Any]) -> str:
    """Return why a run waits, in a few words; empty if it doesn't."""
    record, now = client.records.runs.get(run.id)
    return waits(client.records, [record], now)[record.id]


def explained(client: Dispatcher, run: Run[Any]) -> list[str]:
    """Return sentences on why the run isn't running."""
    return client.explain(run)


def last_lines(run: Run[Any]) -> list[Line]:
    """Return its last log lines."""
    return run.session.records.logs.tail(run.id, _TAIL)


@dataclass(frozen=True)
class Result:
    """A run's result. Only JSON is read; commands never open a pickle.

    ``stored`` describes the stored value, None if there is none.
    """

    run_id: str
    stored: Value | None
    value: Any = None

    def echo(self) -> None:
        """Print it."""
        if self.stored is None:
            return
        if self.stored.codec == "json":
            print_result(self.value)
            return
        echo(
            f"a sealed Python object of {self.stored.size:,} bytes; "
            f'open it with Dispatcher().get("{self.run_id}").result()',
            err=True,
        )


def result_of(client: Dispatcher, record: Record) -> Result:
    """Return the result of a run.

    Raises:
        SealBroken: its bytes were changed.
    """
    stored = record.outcome.result if record.outcome is not None else None
    if stored is None or stored.codec != "json":
        return Result(record.id, stored)
    from dispatcher.records.rejections import Rejected, counting_broken_seals
    from dispatcher.serialization.values import from_value

    with counting_broken_seals(client.records.rejections, Rejected.RESULT):
        return Result(record.id, stored, from_value(stored, get=client.records.blobs.get, seal=None))
