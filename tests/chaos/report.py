"""Report of a soak: violations, counts, and the recovery time after each fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.runs.events import Event
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause
from tests.chaos.distribution import shown
from tests.chaos.fault_injector import Fault

#: Beside the recoveries by kind of fault.
TAKEN_OVER = "worker killed: its runs taken over"


@dataclass(kw_only=True)
class Report:
    """Report of a soak. ``recoveries`` are, by kind of fault, seconds from its end to the next progress."""

    seed: int
    seconds: float
    folder: str
    violations: list[str]
    counts: dict[str, int]
    recoveries: dict[str, list[float]] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """Of the share of runs with a violation, if none was seen: the rule of three, at 95 %."""
        return 3 / max(self.counts["runs"], 1)

    def lines(self) -> list[str]:
        """Return the lines to print."""
        lines = [f"soak, seed {self.seed}: {self.seconds:.0f} s, {len(self.violations)} violations"]
        lines += [f"  {name}: {n}" for name, n in self.counts.items()]
        lines.append("  recovery by kind of fault, seconds from its end to the next progress of any run:")
        lines += [f"    {kind}: {shown(values)}" for kind, values in sorted(self.recoveries.items())]
        every = [value for kind, values in self.recoveries.items() if kind != TAKEN_OVER for value in values]
        lines.append(f"    all: {shown(every)}")
        if self.violations:
            lines += ["  VIOLATIONS", *(f"    {violation}" for violation in self.violations[:50])]
            lines.append(f"  all is in {self.folder}")
        else:
            lines.append(f"  0 violations in {self.counts['runs']} runs: with 95 % confidence fewer than")
            lines.append(f"  {self.bound:.2g} of all runs have one (rule of three)")
        return lines


def recoveries(
    faults: Sequence[Fault], records: Mapping[str, Record], events: Mapping[str, Sequence[Event]]
) -> dict[str, list[float]]:
    """By kind, for each fault: seconds from its end to the next start or end of an attempt, if any run was open."""
    moves = sorted(event.time for of_run in events.values() for event in of_run if event.kind in {"started", "exited"})
    seconds: dict[str, list[float]] = defaultdict(list)
    for fault in faults:
        was_open = any(record.created_at <= fault.healed < (record.ended_at or 0.0) for record in records.values())
        after = next((at for at in moves if at > fault.healed), None)
        if was_open and after is not None:
            seconds[fault.kind].append(after - fault.healed)
    return dict(seconds)


def takeovers(faults: Sequence[Fault], events: Mapping[str, Sequence[Event]]) -> list[float]:
    """Seconds from the kill of a worker to the end of each attempt that it was running, as others noticed it."""
    killed = {fault.target: fault.at for fault in faults if fault.kind == "worker killed"}
    seconds = []
    for of_run in events.values():
        owners = {event.attempt: _pid(str(event.data["owner"])) for event in of_run if event.kind == "started"}
        lost = [event for event in of_run if event.kind == "exited" and event.data.get("cause") == Cause.WORKER_LOST]
        seconds += [event.time - killed[pid] for event in lost if (pid := owners.get(event.attempt, "")) in killed]
    return seconds


def _pid(owner: str) -> str:
    """A worker's, from its id (host, pid and a number); nothing for a shard, whose flows outlive any worker."""
    return owner.rpartition("-")[0].rpartition("-")[2]
