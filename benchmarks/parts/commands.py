"""What a run asks of the server: commands, round trips, bytes; and what stays of it after its retention: nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import bare, ours
from benchmarks.bench import Bench, Measure, Part
from benchmarks.command_meter import Meter
from benchmarks.figures import By, Figure, Measured, Pair
from benchmarks.machine import redis, server
from benchmarks.side import Side
from dispatcher import Dispatcher
from dispatcher.records.effects import EVENTS_KEPT
from dispatcher.records.redis import open_redis

FIGURES = (
    Figure(name="commands sent per run", unit="", digits=2),
    Figure(name="commands within scripts per run", unit="", by=By.OURS, base="", digits=2),
    Figure(name="round trips per run", unit="", digits=2),
    Figure(name="bytes to the server per run", unit="B", digits=0),
    Figure(name="bytes from the server per run", unit="B", digits=0),
    Figure(name="memory of a finished run while it is kept", unit="B", by=By.OURS, digits=0),
    Figure(name="memory of a finished run after its retention", unit="B", bound=0, by=By.OURS, base="", digits=0),
    Figure(name="memory of a used spec until its signature ends", unit="B", bound=100, by=By.OURS, base="", digits=0),
)

_LATER = EVENTS_KEPT + 3 * 86400.0


@contextmanager
def opened(bench: Bench) -> Iterator[Measure]:
    """A server for each side, so that each is counted alone."""
    with server() as near, server() as far, ours.side(near) as mine, bare.side(far) as theirs:
        meters = {side.name: Meter(partial(redis, at)) for side, at in ((mine, near), (theirs, far))}
        for side in (mine, theirs):
            side.idle(20)

        def measure(number: int) -> Measured:
            count = bench.count(300)
            counted = {}
            for side in (mine, theirs):
                bench.say(f"counting, {side.name}")
                counted[side.name] = _per_run(side, meters[side.name], count)
                bench.notes[f"commands per run, {side.name}"] = counted[side.name].pop("by name")
            found: dict[str, Pair] = {}
            for figure in FIGURES[:5]:
                base = None if figure.by is By.OURS else counted[theirs.name][figure.name]
                found[figure.name] = Pair(counted[mine.name][figure.name], base)
            for figure, value in zip(FIGURES[5:], _kept(near, bench.count(1000)), strict=True):
                found[figure.name] = Pair(value)
            return found

        try:
            yield measure
        finally:
            for meter in meters.values():
                meter.close()


def _per_run(side: Side, meter: Meter, count: int) -> dict[str, Any]:
    """What a run costs, one after the other, without what the worker asks for when nothing runs."""
    begin = time.monotonic()
    busy = meter.of(lambda: side.idle(count))
    seconds = time.monotonic() - begin
    rest = meter.of(lambda: time.sleep(1.0))
    heard = meter.commands(lambda: side.idle(count))
    silence = meter.commands(lambda: time.sleep(1.0))

    def per_run(of: Any) -> float:
        return float(max(of(busy) - of(rest) * seconds, 0)) / count

    sent = {name: (heard.sent[name] - silence.sent[name] * seconds) / count for name in heard.sent}
    inside = {name: (heard.inside[name] - silence.inside[name] * seconds) / count for name in heard.inside}
    by_name = {"sent": _shown(sent), "inside": _shown(inside)}
    return {
        "commands sent per run": sum(sent.values()),
        "commands within scripts per run": sum(inside.values()),
        "round trips per run": per_run(lambda counts: counts.trips),
        "bytes to the server per run": per_run(lambda counts: counts.received),
        "bytes from the server per run": per_run(lambda counts: counts.replied),
        "by name": by_name,
    }


def _shown(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in sorted(found.items()) if value >= 0.05}


def _kept(socket: Path, count: int) -> tuple[float, float, float]:
    """Bytes that a run takes while it is kept, and after its retention, and that of events, is over; and what its used
    spec takes until the signature ends."""
    with ours.client(socket) as client, redis(socket) as look:
        _expire(client)
        before, used = _bytes(look), _bytes(look, used=True)
        runs = client.map(ours.noop, [{}] * count, environment=ours.HERE)
        client.wait(runs, timeout=ours.WITHIN)
        kept = (_bytes(look) - before) / count
        _expire(client)
        return kept, (_bytes(look) - before) / count, (_bytes(look, used=True) - used) / count


def _expire(client: Dispatcher) -> None:
    """What the reconciler does, with the clock of a month later."""
    records = open_redis(client.settings.url or "", clock_offset=_LATER)
    try:
        while records.runs.purge():
            pass
    finally:
        records.close()


def _bytes(look: Any, *, used: bool = False) -> int:
    """What all keys of the server occupy, but for those of live workers and of Celery, which no run adds to; those that
    remember used specs, or all others."""
    others = (b"::workers", b"::beats", b"::beaten", b"::leases")
    names = [name for name in look.scan_iter(count=10_000) if not name.endswith(others) and b"::" in name]
    names = [name for name in names if (b"::engine:used:" in name) is used]
    pipe = look.pipeline(transaction=False)
    for name in names:
        pipe.memory_usage(name, samples=0)
    return sum(found or 0 for found in pipe.execute())


PART = Part(name="commands", figures=FIGURES, opened=opened, most_rounds=3)
