"""Many runs as one list: what ``map`` returns."""

from __future__ import annotations

import html
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

from dispatcher.client import waiting
from dispatcher.client.run import Run
from dispatcher.client.timeouts import checked_timeout
from dispatcher.errors import InvalidInput, NotFinished, UnknownRun
from dispatcher.runs.states import State
from dispatcher.support.escaping import escaped

if TYPE_CHECKING:
    from dispatcher.support.durations import Seconds

R = TypeVar("R")

#: Rows of a table in a notebook.
_MOST_ROWS = 100


class Runs(list[Run[R]]):
    """A list of runs that can be waited for, read and cancelled together."""

    def results(self, timeout: Seconds | None = None) -> list[R]:
        """Wait for all to end, and return what their flows returned, in the order of the list.

        Args:
            timeout: seconds, or a timedelta, for all of them together; None waits for ever.

        Raises:
            RunError: one didn't succeed: that of the first in the list, once all have ended. See :meth:`failed`.
            NotFinished: some have not ended within ``timeout`` seconds; the runs go on.
            DispatcherError: as :meth:`Run.result`.
        """
        done = self.wait(timeout)
        if done.not_done:
            seconds = checked_timeout(timeout) or 0.0
            raise NotFinished(f"{len(done.not_done)} of {len(set(self))} runs have not ended within {seconds:g} s")
        return [run.result() for run in self]

    def wait(
        self,
        timeout: Seconds | None = None,
        *,
        return_when: str = waiting.ALL_COMPLETED,
        progress: bool = False,
    ) -> waiting.DoneAndNotDone[R]:
        """Wait for runs to end; see :func:`dispatcher.client.waiting.wait`."""
        return waiting.wait(self, return_when=return_when, timeout=timeout, progress=progress)

    def failed(self) -> Runs[R]:
        """Return those that have ended without success, read from the server. None whose retention is over.

        Raises:
            ServerUnavailable: the server can't be reached.
        """
        refresh(self)
        ended = [(run, run.last_record) for run in self if run.last_record is not None]
        return Runs(run for run, record in ended if record.terminal and record.state is not State.SUCCEEDED)

    def cancel(self) -> int:
        """Cancel those that haven't ended.

        Returns:
            The number of runs on which this call had an effect; see :meth:`Run.cancel`.
        """
        refresh(self)
        return sum(_was_cancelled(run) for run in self if run.last_record is not None and not run.last_record.terminal)

    @overload
    def __getitem__(self, key: SupportsIndex) -> Run[R]: ...
    @overload
    def __getitem__(self, key: slice[Any, Any, Any]) -> Runs[R]: ...
    def __getitem__(self, key: SupportsIndex | slice[Any, Any, Any]) -> Run[R] | Runs[R]:
        return Runs(super().__getitem__(key)) if isinstance(key, slice) else super().__getitem__(key)

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for run in self:
            state = str(run.known_state or "unknown")
            counts[state] = counts.get(state, 0) + 1
        listed = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        return f"<Runs: {len(self)}{f' ({listed}, last known)' if listed else ''}>"

    def _repr_html_(self) -> str:
        rows = [run.facts() for run in self[:_MOST_ROWS]]
        names = ("run", "flow", "state", "age")
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(escaped(row.get(name, str())))}</td>' for name in names)}</tr>"
            for row in rows
        )
        more = f"<p>{len(rows)} of {len(self)} runs</p>" if len(self) > len(rows) else ""
        return f"<table><tr>{head}</tr>{body}</table>{more}"


def refresh(runs: Iterable[Run[Any]]) -> None:
    """Read the records of runs that haven't ended, in few round trips."""
    groups: dict[int, list[Run[Any]]] = {}
    for run in runs:
        if run.last_record is None or not run.last_record.terminal:
            groups.setdefault(id(run.session), []).append(run)
    for group in groups.values():
        records = group[0].session.records.runs.get_many([run.id for run in group])
        for run, record in zip(group, records, strict=True):
            if record is not None:
                run.remember(record)


def _was_cancelled(run: Run[Any]) -> bool:
    """Cancel a run. Return True if that had an effect; also False if it has ended meanwhile."""
    with suppress(InvalidInput, UnknownRun):
        return run.cancel()
    return False
