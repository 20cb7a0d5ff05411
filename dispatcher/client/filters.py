"""Checked filters for listing runs. For :meth:`dispatcher.client.client.Dispatcher.runs` alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from dispatcher.errors import InvalidInput
from dispatcher.flows.flow import Flow
from dispatcher.records.query import Query
from dispatcher.runs.states import State
from dispatcher.support.durations import Seconds, seconds_of
from dispatcher.support.escaping import shown


def make_query(
    *,
    state: State | str | None,
    label: str | None,
    flow: Flow[..., Any] | str | None,
    tag: str | None,
    since: datetime | Seconds | None,
    now: Callable[[], float],
) -> Query:
    """Return the query for these filters.

    Args:
        state: a state, or its name in any case.
        label: one label.
        flow: a flow, or a flow's name.
        tag: one tag.
        since: a time, or seconds ago.
        now: returns the server's clock, in seconds since the epoch.

    Raises:
        InvalidInput: a filter has a wrong value; names the filter.
    """
    return Query(
        state=None if state is None else _state(state),
        label=_text("label", label),
        flow=flow.name if isinstance(flow, Flow) else _text("flow", flow),
        tag=_text("tag", tag),
        since=_since(since, now),
    )


def check_limit(limit: int | None) -> None:
    """Check the limit of a list of runs.

    Raises:
        InvalidInput: it is neither None nor an integer of at least 0.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise InvalidInput(f"limit: must be an integer of at least 0, or None for all, got {shown(limit)}")


def _state(state: State | str) -> State:
    try:
        return State(state.upper())
    except (ValueError, AttributeError):
        raise InvalidInput(f"state: must be one of {', '.join(State)}, got {shown(state)}") from None


def _text(name: str, value: str | None) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{name}: must be one {name}'s name, got {shown(value)}")
    return value


def _since(since: datetime | Seconds | None, now: Callable[[], float]) -> float | None:
    if since is None:
        return None
    if isinstance(since, datetime):
        return since.timestamp()
    seconds = seconds_of(since)
    if seconds is None or not 0 <= seconds < 1e10:
        raise InvalidInput(f"since: must be a datetime, a timedelta or seconds ago, got {shown(since)}")
    return now() - seconds
