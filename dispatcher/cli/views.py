"""The views in which ``run`` shows a run while it goes on: live on a terminal, plain lines elsewhere. Used by ``run``
alone.

Plain: what the flow prints goes to standard output, all else to standard error, so that ``run … > file`` keeps what
the flow said and gave back.
"""

from __future__ import annotations

import time
from typing import Protocol

from dispatcher.cli.formatting import STYLES, log_line, passing, phases, span
from dispatcher.cli.terminal import Painted, Part, Screen, echo
from dispatcher.records.logs import Line
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.states import State


class View(Protocol):
    """A view of a run."""

    def begin(self, title: str) -> None:
        """The run was accepted, or found."""

    def event(self, event: Event) -> None:
        """Something happened to it."""

    def line(self, line: Line) -> None:
        """The flow printed or logged a line."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def tick(self) -> None:
        """Time passed."""

    def close(self) -> None:
        """Nothing more comes. Safe to call twice."""


class PlainView:
    """One line per fact.

    Args:
        logs: show the flow's lines.
        logs_aside: they go to standard error too, since standard output is for one JSON document.
    """

    def __init__(self, *, logs: bool = True, logs_aside: bool = False) -> None:
        self._logs = logs
        self._logs_aside = logs_aside
        self._before: Event | None = None

    def begin(self, title: str) -> None:
        echo(title, err=True)

    def event(self, event: Event) -> None:
        before, self._before = self._before, event
        if passing(event, before):
            return
        ((when, passed, what, note),) = phases([event] if before is None else [before, event])[-1:]
        echo(f"{when}  {passed:>9}  {what}{f'  ({note})' if note else ''}", err=True)

    def line(self, line: Line) -> None:
        if self._logs:
            echo(log_line(line), err=self._logs_aside)

    def note(self, text: str) -> None:
        echo(text, err=True)

    def tick(self) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing is held."""


class QuietView(PlainView):
    """Notes alone."""

    def begin(self, title: str) -> None:
        """Not shown."""

    def event(self, event: Event) -> None:
        """Not shown."""

    def line(self, line: Line) -> None:
        """Not shown."""


class LiveView:
    """Log lines scroll by above; state, elapsed time and the phases so far stand below them."""

    def __init__(self) -> None:
        self._screen = Screen()
        self._events: list[Event] = []
        self._begun = time.monotonic()

    def begin(self, title: str) -> None:
        self._begun = time.monotonic()
        self._screen.line(Painted(title, "bold"))
        self._screen.begin()
        self.tick()

    def event(self, event: Event) -> None:
        if not passing(event, self._events[-1] if self._events else None):
            self._events.append(event)
            self.tick()

    def line(self, line: Line) -> None:
        self._screen.line(Painted(log_line(line), "dim" if line.stream == "gap" else ""))

    def note(self, text: str) -> None:
        self._screen.line(Painted(text, "yellow"))

    def tick(self) -> None:
        state = self._events[-1].state if self._events else State.QUEUED
        passed = Painted(span(time.monotonic() - self._begun), "dim")
        self._screen.foot(Painted(str(state), STYLES[state]), "  ", passed, "  ", way(self._events))

    def close(self) -> None:
        self._screen.end()
        events, self._events = self._events, []
        if events:
            self._screen.rows(timeline(events))


def way(events: list[Event]) -> str:
    """The phases of the current attempt and how long each took: queued 0.01 s → claimed 0.20 s → started."""
    if not events:
        return ""
    current = [one for one in events if one.attempt == events[-1].attempt]
    parts = []
    for one, after in zip(current, [*current[1:], None], strict=True):
        if after is None:
            parts.append(str(one.kind))
        elif after.time > one.time:
            parts.append(f"{one.kind} {span(after.time - one.time)}")
    again = f"attempt {events[-1].attempt}: " if events[-1].attempt > 1 else ""
    return again + " → ".join(parts)


def timeline(events: list[Event]) -> list[tuple[Part, Part, Part, Part]]:
    """The phases of a run as rows of a table."""
    return [
        (when, passed, Painted(what, STYLES[event.state] if event.kind is EventKind.EXITED else ""), note)
        for event, (when, passed, what, note) in zip(events, phases(events), strict=True)
    ]
