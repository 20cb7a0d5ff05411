"""The phases of a run, made of its events. A value for people and programs; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.infrastructure import MOMENTS

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

#: The first line that the flow printed or logged.
FIRST_LINE = "first line"

_BEFORE = ("created", "scheduled", "pulled", "started", FIRST_LINE)
_AFTER = ("finished", "torn down")

_ASKED = frozenset({EventKind.QUEUED, EventKind.CLAIMED, EventKind.RELEASED, EventKind.PROVISIONING})

#: Moment → the events of ours that come before it whatever the clocks say.
_CAUSES = {
    "created": _ASKED,
    "scheduled": _ASKED,
    "pulled": _ASKED,
    "started": _ASKED,
    FIRST_LINE: _ASKED | {EventKind.PENDING, EventKind.STARTED},
}

#: Moment → the events that come after it whatever the clocks say.
_STARTS = frozenset({EventKind.STARTED, EventKind.EXITED})
_THEN = {
    "created": _STARTS | {EventKind.PENDING},
    "scheduled": _STARTS,
    "pulled": _STARTS,
    "started": _STARTS,
    FIRST_LINE: frozenset({EventKind.EXITED}),
    "finished": frozenset({EventKind.EXITED}),
    "torn down": frozenset[EventKind](),
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a run.

    ``start`` is in seconds since the epoch by the server's clock; ``duration`` in seconds, None while it lasts.
    """

    name: str
    attempt: int
    start: float
    duration: float | None


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The phases of a run in order; ``end`` is its terminal state, empty while it is open, and ``ended`` when it came
    to that: what its infrastructure did later has phases too. Iterates over phases."""

    run_id: str
    phases: tuple[Phase, ...] = ()
    end: str = ""
    ended: float | None = None

    def __iter__(self) -> Iterator[Phase]:
        return iter(self.phases)

    def __len__(self) -> int:
        return len(self.phases)

    @property
    def total(self) -> float | None:
        """Seconds from acceptance to the end; None while the run is open."""
        return None if not self.phases or self.ended is None else self.ended - self.phases[0].start

    def __str__(self) -> str:
        rows = [f"run {self.run_id}  {self.end or 'open'}"]
        width = max((len(phase.name) for phase in self.phases), default=0)
        for phase in self.phases:
            rows.append(f"  {_clock(phase.start)}  #{phase.attempt}  {phase.name:<{width}}  {_lasted(phase.duration)}")
        return "\n".join(rows)

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(title=f"{self.run_id}  {self.end or 'open'}", title_justify="left", box=None)
        for name in ("start", "attempt", "phase"):
            table.add_column(name)
        table.add_column("duration", justify="right")
        for phase in self.phases:
            table.add_row(_clock(phase.start), str(phase.attempt), phase.name, _lasted(phase.duration))
        return table


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Something that happened: an event of ours, or what an attempt's infrastructure came to by its own account."""

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
    """The phases that ``events`` tell of. Steps of one script, which took no time, are left out.

    Args:
        run_id: the run.
        events: its events, in order.
        times: attempt → moment → time, as :attr:`~dispatcher.runs.record.Record.times` has them.
        lines: attempt → when the flow printed or logged its first line.
    """
    open_phases: list[tuple[str, int, float]] = []
    phases: list[Phase] = []
    end = ""
    ended: float | None = None
    for moment in moments(events, times, lines):
        event, name = moment.event, moment.name
        if event is not None and event.kind is EventKind.EXITED:
            name = "" if event.final else _AWAITING
            end, ended = (str(event.state), event.time) if event.final else ("", None)
        if event is not None and event.kind not in _NAMES and event.kind is not EventKind.EXITED:
            continue  # sight lost or regained: no phase of its own
        if open_phases:
            phases.append(_closed(open_phases.pop(), moment.time))
        if name:
            open_phases.append((name, moment.attempt, moment.time))
    kept = {"queued", "running", *MOMENTS, FIRST_LINE}
    shown = [phase for phase in phases if phase.duration or phase.name in kept]
    lasts = 0.0 if end else None  # after the end of the run nothing lasts
    shown += [Phase(name=name, attempt=attempt, start=start, duration=lasts) for name, attempt, start in open_phases]
    return Timeline(run_id=run_id, phases=tuple(shown), end=end, ended=ended)


def moments(
    events: Iterable[Event],
    times: Mapping[str, Mapping[str, float]] | None = None,
    lines: Mapping[int, float] | None = None,
) -> list[Moment]:
    """Events and moments of infrastructure in the order in which they come about.

    Clocks of others go wrong, and some know whole seconds alone: what they tell is moved between the events of ours
    that it lies between, so that nothing takes less than no time.
    """
    found = [
        Moment(name=_NAMES.get(event.kind, str(event.kind)), attempt=event.attempt, time=event.time, event=event)
        for event in events
    ]
    last = max((one.attempt for one in found), default=0)
    for attempt in range(1, last + 1):
        known = dict((times or {}).get(str(attempt), {}))
        if lines and attempt in lines and known:
            known[FIRST_LINE] = lines[attempt]
        for name in (*_BEFORE, *_AFTER):
            if name in known and (name not in _AFTER or attempt == last):
                _insert(found, Moment(name=name, attempt=attempt, time=known[name]))
    return found


def _insert(found: list[Moment], moment: Moment) -> None:
    """Put a moment behind those of its attempt that come before it, and before the next of ours."""
    at = 0
    for number, one in enumerate(found):
        if one.attempt == moment.attempt and _comes_after(moment, one):
            at = number + 1
    while at < len(found) and found[at].attempt == moment.attempt and _may_pass(moment, found[at]):
        at += 1
    least = found[at - 1].time if at else moment.time
    most = next((one.time for one in found[at:] if one.event is not None), None)
    time = max(moment.time, least)
    found.insert(at, replace(moment, time=time if most is None else min(time, max(most, least))))


def _comes_after(moment: Moment, other: Moment) -> bool:
    if other.event is None:
        return True  # inserted before, in order
    if other.event.kind is EventKind.EXITED:
        return moment.name in _AFTER and (moment.name != "finished" or moment.time > other.time)
    return moment.name in _AFTER or other.event.kind in _CAUSES[moment.name]


def _may_pass(moment: Moment, other: Moment) -> bool:
    """Return True if a moment comes behind an event of ours because it came later, with no other reason."""
    return other.event is not None and other.event.kind not in _THEN[moment.name] and other.time <= moment.time


def _closed(phase: tuple[str, int, float], until: float) -> Phase:
    name, attempt, start = phase
    return Phase(name=name, attempt=attempt, start=start, duration=max(0.0, until - start))


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _lasted(duration: float | None) -> str:
    if duration is None:
        return "…"
    return f"{duration * 1000:.0f} ms" if duration < 1 else f"{duration:.1f} s"
