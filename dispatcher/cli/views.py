"""Views of a run in progress: live on a terminal, plain lines elsewhere. Used by ``run`` only.

The plain view prints the flow's output to standard output and everything else to standard error, so that
``run … > file`` saves the flow's output and result.
"""

from __future__ import annotations

import time
from typing import Protocol

from dispatcher.cli.formatting import STYLES, is_instant, log_line, phases, workers_of
from dispatcher.cli.terminal import Painted, Part, Screen, echo
from dispatcher.records.logs import Line
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.states import State
from dispatcher.runs.wait import sentence
from dispatcher.support.durations import format_duration


class View(Protocol):
    """The interface of a view."""

    def begin(self, title: str) -> None:
        """Show the title of the run."""

    def event(self, event: Event) -> None:
        """Show a lifecycle event."""

    def line(self, line: Line) -> None:
        """Show a line that the flow printed or logged."""

    def note(self, text: str) -> None:
        """Show a note to the user."""

    def waiting(self, why: str) -> None:
        """Show why the run isn't claimed yet."""

    def tick(self) -> None:
        """Refresh the elapsed time."""

    def close(self) -> None:
        """End the view. Safe to call twice."""


class PlainView:
    """One line per event, log line or note.

    Args:
        logs: show the flow's lines.
        logs_aside: print them to standard error, since standard output is for one JSON document.
    """

    def __init__(self, *, logs: bool = True, logs_aside: bool = False) -> None:
        self._logs = logs
        self._logs_aside = logs_aside
        self._previous: Event | None = None

    def begin(self, title: str) -> None:
        echo(title, err=True)

    def event(self, event: Event) -> None:
        previous, self._previous = self._previous, event
        if is_instant(event, previous):
            return
        ((clock, passed, name, note),) = phases([event] if previous is None else [previous, event])[-1:]
        echo(f"{clock}  {passed:>9}  {name}{f'  ({note})' if note else ''}", err=True)

    def line(self, line: Line) -> None:
        if self._logs:
            echo(log_line(line), err=self._logs_aside)

    def note(self, text: str) -> None:
        echo(text, err=True)

    def waiting(self, why: str) -> None:
        """Not shown: notes say more."""

    def tick(self) -> None:
        """Do nothing: no line shows the time."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class QuietView(PlainView):
    """Only notes."""

    def begin(self, title: str) -> None:
        """Not shown."""

    def event(self, event: Event) -> None:
        """Not shown."""

    def line(self, line: Line) -> None:
        """Not shown."""


class LiveView:
    """Log lines scroll above a last line with state, elapsed time and the phases so far."""

    def __init__(self) -> None:
        self._screen = Screen()
        self._events: list[Event] = []
        self._begun = time.monotonic()
        self._waiting = ""

    def begin(self, title: str) -> None:
        self._begun = time.monotonic()
        self._screen.line(Painted(title, "bold"))
        self._screen.begin()
        self.tick()

    def event(self, event: Event) -> None:
        if not is_instant(event, self._events[-1] if self._events else None):
            self._events.append(event)
            self.tick()

    def line(self, line: Line) -> None:
        self._screen.line(Painted(log_line(line), "dim" if line.stream == "gap" else ""))

    def note(self, text: str) -> None:
        self._screen.line(Painted(text, "yellow"))

    def waiting(self, why: str) -> None:
        self._waiting = why

    def tick(self) -> None:
        state = self._events[-1].state if self._events else State.QUEUED
        passed = Painted(format_duration(time.monotonic() - self._begun), "dim")
        why = f"  {self._waiting}" if self._waiting and state is State.QUEUED else ""
        self._screen.foot(Painted(str(state), STYLES[state]), "  ", passed, "  ", progress(self._events), why)

    def close(self) -> None:
        self._screen.end()
        events, self._events = self._events, []
        if events:
            self._screen.rows(timeline(events))


def progress(events: list[Event]) -> str:
    """Return the phases of the current attempt with their durations: queued 10 ms → claimed 0.20 s → started.

    Why it waits follows them, or how many workers it has.
    """
    if not events:
        return ""
    last, beside = events[-1], {EventKind.WAITING, EventKind.WORKERS}
    current = [event for event in events if event.attempt == last.attempt and event.kind not in beside]
    parts = []
    for event, after in zip(current, [*current[1:], None], strict=True):
        if after is None:
            parts.append(str(event.kind))
        elif after.time > event.time:
            parts.append(f"{event.kind} {format_duration(after.time - event.time)}")
    again = f"attempt {last.attempt}: " if last.attempt > 1 else ""
    notes = {EventKind.WAITING: f"  {sentence(last.data)}", EventKind.WORKERS: f"  {', '.join(workers_of(last))}"}
    return again + " → ".join(parts) + notes.get(last.kind, "")


def timeline(events: list[Event]) -> list[tuple[Part, Part, Part, Part]]:
    """Return the phases of a run as rows of a table."""
    return [
        (clock, passed, Painted(name, STYLES[event.state] if event.kind is EventKind.EXITED else ""), note)
        for event, (clock, passed, name, note) in zip(events, phases(events), strict=True)
    ]
