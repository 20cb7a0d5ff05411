"""The phases of a run, made of its events. A value for people and programs; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from dispatcher.runs.events import Event, Kind

if TYPE_CHECKING:
    from rich.table import Table

_NAMES = {
    Kind.QUEUED: "queued",
    Kind.RELEASED: "queued",
    Kind.CLAIMED: "claimed",
    Kind.PROVISIONING: "provisioning",
    Kind.PENDING: "pending",
    Kind.STARTED: "running",
    Kind.CANCELLING: "cancelling",
}
_AWAITING = "awaiting retry"


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
    """The phases of a run in order; ``end`` is its terminal state, empty while it is open. Iterates over phases."""

    run_id: str
    phases: tuple[Phase, ...] = ()
    end: str = ""

    def __iter__(self) -> Iterator[Phase]:
        return iter(self.phases)

    def __len__(self) -> int:
        return len(self.phases)

    @property
    def total(self) -> float | None:
        """Seconds from acceptance to the end; None while the run is open."""
        if not self.phases or not self.end:
            return None
        last = self.phases[-1]
        return last.start + (last.duration or 0.0) - self.phases[0].start

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


def timeline(run_id: str, events: Iterable[Event]) -> Timeline:
    """The phases that ``events`` tell of. Steps of one script, which took no time, are left out."""
    open_phases: list[tuple[str, int, float]] = []
    phases: list[Phase] = []
    end = ""
    for event in events:
        name = _NAMES.get(event.kind)
        if event.kind is Kind.EXITED:
            name = "" if event.final else _AWAITING
            end = str(event.state) if event.final else ""
        if name is None:  # sight lost or regained: no phase of its own
            continue
        if open_phases:
            phases.append(_closed(open_phases.pop(), event.time))
        if name:
            open_phases.append((name, event.attempt, event.time))
    shown = [phase for phase in phases if phase.duration or phase.name in {"queued", "running"}]
    shown += [Phase(name=name, attempt=attempt, start=start, duration=None) for name, attempt, start in open_phases]
    return Timeline(run_id=run_id, phases=tuple(shown), end=end)


def _closed(phase: tuple[str, int, float], until: float) -> Phase:
    name, attempt, start = phase
    return Phase(name=name, attempt=attempt, start=start, duration=max(0.0, until - start))


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _lasted(duration: float | None) -> str:
    if duration is None:
        return "…"
    return f"{duration * 1000:.0f} ms" if duration < 1 else f"{duration:.1f} s"
