"""How ``run`` shows a run while it goes on: live on a terminal, plain lines elsewhere. Used by ``run`` alone.

Plain: what the flow prints goes to standard output, all else to standard error, so that ``run … > file`` keeps what
the flow said and gave back.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

import click

from dispatcher.cli.words import STYLES, log_line, passing, phases, span
from dispatcher.records.base import Line
from dispatcher.runs.events import Event, Kind
from dispatcher.runs.states import State

if TYPE_CHECKING:
    from rich.console import RenderableType


class View(Protocol):
    """What shows a run."""

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
        click.echo(title, err=True)

    def event(self, event: Event) -> None:
        before, self._before = self._before, event
        if passing(event, before):
            return
        ((when, passed, what, note),) = phases([event] if before is None else [before, event])[-1:]
        click.echo(f"{when}  {passed:>9}  {what}{f'  ({note})' if note else ''}", err=True)

    def line(self, line: Line) -> None:
        if self._logs:
            click.echo(log_line(line), err=self._logs_aside)

    def note(self, text: str) -> None:
        click.echo(text, err=True)

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
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = Console(highlight=False)
        self._spinner = Spinner("dots", style="cyan")
        self._title = ""
        self._events: list[Event] = []
        self._begun = time.monotonic()
        self._live = Live(
            console=self._console, refresh_per_second=10, transient=True, redirect_stderr=sys.stderr.isatty()
        )

    def begin(self, title: str) -> None:
        self._title = title
        self._begun = time.monotonic()
        self._console.print(title, style="bold", markup=False)
        self._live.start()
        self.tick()

    def event(self, event: Event) -> None:
        if not passing(event, self._events[-1] if self._events else None):
            self._events.append(event)
            self.tick()

    def line(self, line: Line) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(log_line(line)), style="dim" if line.stream == "gap" else None)

    def note(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False)

    def tick(self) -> None:
        self._live.update(self._picture())

    def close(self) -> None:
        self._live.stop()
        events, self._events = self._events, []
        if events:
            self._console.print(timeline(events))

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        state = self._events[-1].state if self._events else State.QUEUED
        head = Text.assemble(
            (str(state), STYLES[state]), "  ", (span(time.monotonic() - self._begun), "dim"), "  ", way(self._events)
        )
        self._spinner.update(text=head)
        return Group(Text(""), self._spinner)


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


def timeline(events: list[Event]) -> RenderableType:
    """The phases of a run as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(style="dim", justify="right")
    table.add_column()
    table.add_column(overflow="fold")
    for event, (when, passed, what, note) in zip(events, phases(events), strict=True):
        style = STYLES[event.state] if event.kind is Kind.EXITED else ""
        table.add_row(when, passed, Text(what, style=style), Text(note))
    return table
