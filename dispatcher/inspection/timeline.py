"""The timeline of a run: its phases, derived from its events and from the timestamps of its infrastructure. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.infrastructure import MOMENTS
from dispatcher.support.durations import format_clock, format_duration

if TYPE_CHECKING:
    from rich.table import Table

_NAMES = {
    EventKind.QUEUED: "queued",
    EventKind.RELEASED: "queued",
    EventKind.CLAIMED: "claimed",
    EventKind.PROVISIONING: "provisioning",
    EventKind.PENDING: "pending",
    EventKind.STARTED: "running",
    EventKind.CANCELLING: "cancelling",
}
_AWAITING = "awaiting retry"

#: Name of the moment at which the flow printed or logged its first line.
FIRST_LINE = "first line"

#: Moments of infrastructure in order: those before the flow's end, and those after it.
_BEFORE = ("created", "scheduled", "pulled", "started", FIRST_LINE)
_AFTER = ("finished", "torn down")

_REQUESTED = frozenset({EventKind.QUEUED, EventKind.CLAIMED, EventKind.RELEASED, EventKind.PROVISIONING})

#: Moment → kinds of events that precede it, whatever the clocks say.
_PRECEDING = {
    "created": _REQUESTED,
    "scheduled": _REQUESTED,
    "pulled": _REQUESTED,
    "started": _REQUESTED,
    FIRST_LINE: _REQUESTED | {EventKind.PENDING, EventKind.STARTED},
}

#: Moment → kinds of events that follow it, whatever the clocks say.
_RUNNER_EVENTS = frozenset({EventKind.STARTED, EventKind.EXITED})
_FOLLOWING = {
    "created": _RUNNER_EVENTS | {EventKind.PENDING},
    "scheduled": _RUNNER_EVENTS,
    "pulled": _RUNNER_EVENTS,
    "started": _RUNNER_EVENTS,
    FIRST_LINE: frozenset({EventKind.EXITED}),
    "finished": frozenset({EventKind.EXITED}),
    "torn down": frozenset[EventKind](),
}


@dataclass(frozen=True, kw_only=True)
class RunPhase:
    """A phase of a run.

    ``start`` is in seconds since the epoch by the server's clock, ``duration`` in seconds; None while the phase lasts.
    """

    name: str
    attempt: int
    start: float
    duration: float | None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The phases of a run in order. Iterating yields the phases.

    ``end`` is its terminal state, empty while the run is open. ``ended`` is the time of its end: its infrastructure may
    have later phases.
    """

    run_id: str
    phases: tuple[RunPhase, ...] = ()
    end: str = ""
    ended: float | None = None

    def __iter__(self) -> Iterator[RunPhase]:
        return iter(self.phases)

    def __len__(self) -> int:
        return len(self.phases)

    @property
    def total(self) -> float | None:
        """Seconds from the submit to the end; None while the run is open."""
        return None if not self.phases or self.ended is None else self.ended - self.phases[0].start

    def __str__(self) -> str:
        rows = [f"run {self.run_id}  {self.end or 'open'}"]
        width = max((len(phase.name) for phase in self.phases), default=0)
        for phase in self.phases:
            lasted = _format_length(phase.duration)
            rows.append(f"  {format_clock(phase.start)}  #{phase.attempt}  {phase.name:<{width}}  {lasted}")
        return "\n".join(rows)

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=f"{self.run_id}  {self.end or 'open'}", title_justify="left", box=None)
        for name in ("start", "attempt", "phase"):
            table.add_column(name)
        table.add_column("duration", justify="right")
        for phase in self.phases:
            table.add_row(format_clock(phase.start), str(phase.attempt), phase.name, _format_length(phase.duration))
        return table


@dataclass(frozen=True, kw_only=True)
class Moment:
    """An event, or a moment that an attempt's infrastructure reports by its own timestamps."""

    name: str
    attempt: int
    time: float
    event: Event | None = None


def timeline(
    run_id: str,
    events: Iterable[Event],
    times: Mapping[str, Mapping[str, float]] | None = None,
    lines: Mapping[int, float] | None = None,
) -> Timeline:
    """Return the phases of a run. Steps of one script, which took no time, are left out.

    Args:
        run_id: its id.
        events: its events, in order.
        times: attempt → moment → time, as :attr:`~dispatcher.runs.record.Record.times` has them.
        lines: attempt → when the flow printed or logged its first line.
    """
    open_phases: list[tuple[str, int, float]] = []
    phases: list[RunPhase] = []
    end = ""
    ended: float | None = None
    for moment in moments(events, times, lines):
        event, name = moment.event, moment.name
        if event is not None and event.kind is EventKind.EXITED:
            name = "" if event.final else _AWAITING
            end, ended = (str(event.state), event.time) if event.final else ("", None)
        if event is not None and event.kind not in _NAMES and event.kind is not EventKind.EXITED:
            continue  # infrastructure lost or seen again: no phase of its own
        if open_phases:
            phases.append(_closed(open_phases.pop(), moment.time))
        if name:
            open_phases.append((name, moment.attempt, moment.time))
    always = {"queued", "running", *MOMENTS, FIRST_LINE}
    shown = [phase for phase in phases if phase.duration or phase.name in always]
    lasts = 0.0 if end else None  # no phase lasts beyond the end of the run
    shown += [RunPhase(name=name, attempt=attempt, start=start, duration=lasts) for name, attempt, start in open_phases]
    return Timeline(run_id=run_id, phases=tuple(shown), end=end, ended=ended)


def moments(
    events: Iterable[Event],
    times: Mapping[str, Mapping[str, float]] | None = None,
    lines: Mapping[int, float] | None = None,
) -> list[Moment]:
    """Return events and moments of infrastructure in causal order.

    Other machines' clocks may be skewed or have whole seconds only. So a moment is moved between the events that it
    must lie between: no phase gets a negative duration.
    """
    ordered = [
        Moment(name=_NAMES.get(event.kind, str(event.kind)), attempt=event.attempt, time=event.time, event=event)
        for event in events
    ]
    last = max((moment.attempt for moment in ordered), default=0)
    for attempt in range(1, last + 1):
        reported = dict((times or {}).get(str(attempt), {}))
        if lines and attempt in lines and reported:
            reported[FIRST_LINE] = lines[attempt]
        for name in (*_BEFORE, *_AFTER):
            if name in reported and (name not in _AFTER or attempt == last):
                _insert(ordered, Moment(name=name, attempt=attempt, time=reported[name]))
    return ordered


def _insert(ordered: list[Moment], moment: Moment) -> None:
    """Insert a moment after those of its attempt that precede it, and before the next event."""
    at = 0
    for index, other in enumerate(ordered):
        if other.attempt == moment.attempt and _comes_after(moment, other):
            at = index + 1
    while at < len(ordered) and ordered[at].attempt == moment.attempt and _may_pass(moment, ordered[at]):
        at += 1
    least = ordered[at - 1].time if at else moment.time
    most = next((other.time for other in ordered[at:] if other.event is not None), None)
    time = max(moment.time, least)
    ordered.insert(at, replace(moment, time=time if most is None else min(time, max(most, least))))


def _comes_after(moment: Moment, other: Moment) -> bool:
    if other.event is None:
        return True  # moments are inserted in order
    if other.event.kind is EventKind.EXITED:
        return moment.name in _AFTER and (moment.name != "finished" or moment.time > other.time)
    return moment.name in _AFTER or other.event.kind in _PRECEDING[moment.name]


def _may_pass(moment: Moment, other: Moment) -> bool:
    """Return True if a moment follows an event only because its time is later."""
    return other.event is not None and other.event.kind not in _FOLLOWING[moment.name] and other.time <= moment.time


def _closed(phase: tuple[str, int, float], until: float) -> RunPhase:
    name, attempt, start = phase
    return RunPhase(name=name, attempt=attempt, start=start, duration=max(0.0, until - start))


def _format_length(duration: float | None) -> str:
    return "…" if duration is None else format_duration(duration)
