"""Lookups of the commands: a run by its id or the end of it, its record, its result. Used by commands alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.cli.terminal import echo, print_result
from dispatcher.errors import InvalidInput, UnknownRun, UnreadableRun
from dispatcher.records.logs import Line
from dispatcher.records.query import Query
from dispatcher.runs.record import Record
from dispatcher.runs.value import Value
from dispatcher.support.ids import is_run_id

if TYPE_CHECKING:
    from dispatcher.client.client import Dispatcher
    from dispatcher.client.run import Run

#: Shortest part of an id that may stand for it, and among how many of the newest runs it is looked for.
_SHORTEST = 4
_NEWEST = 1000
_TAIL = 20


def find(client: Dispatcher, text: str) -> Run[Any]:
    """The run with this id, or with an id that ends so.

    Raises:
        UnknownRun: there is none.
        InvalidInput: there are several.
    """
    try:
        return client.get(text)
    except UnreadableRun:
        raise
    except UnknownRun:
        if len(text) < _SHORTEST or not is_run_id(text):
            raise
    matching = [one.id for one in client.records.runs.find(Query(), limit=_NEWEST) if one.id.endswith(text)]
    if not matching:
        raise UnknownRun(f"no run {text!r}: no id is it or ends so, or its retention is over")
    if len(matching) > 1:
        raise InvalidInput(f"run {text!r}: {len(matching)} ids end so; write more of it: {', '.join(matching[:3])}")
    return client.get(matching[0])


def find_many(client: Dispatcher, *, limit: int, **filters: Any) -> list[Record]:
    """Runs, newest first."""
    return list(client.records.runs.find(Query(**filters), limit=limit))


def record_of(client: Dispatcher, run: Run[Any]) -> Record:
    """The run's record as it stands now."""
    return client.records.runs.get(run.id)[0]


def explained(client: Dispatcher, run: Run[Any]) -> list[str]:
    """Why it isn't running."""
    return client.explain(run)


def last_lines(run: Run[Any]) -> list[Line]:
    """The last lines it printed."""
    return run.session.records.logs.tail(run.id, _TAIL)


@dataclass(frozen=True)
class Result:
    """A run's result as far as it may be seen here: JSON is; a pickle is never opened by this command."""

    run_id: str
    kept: Value | None
    value: Any = None

    def echo(self) -> None:
        """Print it."""
        if self.kept is None:
            return
        if self.kept.codec == "json":
            print_result(self.value)
            return
        echo(
            f"a sealed Python object of {self.kept.size:,} bytes; "
            f'open it with Dispatcher().get("{self.run_id}").result()',
            err=True,
        )


def result_of(client: Dispatcher, record: Record) -> Result:
    """The result of a run.

    Raises:
        SealBroken: its bytes were changed.
    """
    kept = record.outcome.result if record.outcome is not None else None
    if kept is None or kept.codec != "json":
        return Result(record.id, kept)
    from dispatcher.records.rejections import Rejected, counting_broken_seals
    from dispatcher.serialization.values import from_value

    with counting_broken_seals(client.records.rejections, Rejected.RESULT):
        return Result(record.id, kept, from_value(kept, get=client.records.blobs.get, seal=None))
