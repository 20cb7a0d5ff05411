"""The load of a run on the server: commands, round trips, bytes, and the memory during and after its retention."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import bare, ours
from benchmarks.bench import Benchmark, Measure, Part
from benchmarks.command_meter import Meter
from benchmarks.figures import Comparison, Figure, Measured, Pair
from benchmarks.machine import redis, server
from benchmarks.side import Side
from dispatcher import Dispatcher
from dispatcher.records.effects import EVENTS_KEPT
from dispatcher.records.redis import open_redis

FIGURES = (
    Figure(name="commands sent per run", unit="", digits=2),
    Figure(name="commands within scripts per run", unit="", by=Comparison.OURS, base="", digits=2),
    Figure(name="round trips per run", unit="", digits=2),
    Figure(name="bytes to the server per run", unit="B", digits=0),
    Figure(name="bytes from the server per run", unit="B", digits=0),
    Figure(name="memory of a finished run while it is kept", unit="B", by=Comparison.OURS, digits=0),
    Figure(
        name="memory of a finished run after its retention", unit="B", bound=0, by=Comparison.OURS, base="", digits=0
    ),
    Figure(
        name="memory of a used spec until its signature ends",
        unit="B",
        bound=100,
        by=Comparison.OURS,
        base="",
        digits=0,
    ),
)

_AFTER_RETENTION = EVENTS_KEPT + 3 * 86400.0  # seconds by which the clock is advanced


@contextmanager
def opened(bench: Benchmark) -> Iterator[Measure]:
    """Start a server for each side, so that each is counted alone."""
    with server() as socket, server() as bare_socket, ours.side(socket) as mine, bare.side(bare_socket) as theirs:
        meters = {side.name: Meter(partial(redis, path)) for side, path in ((mine, socket), (theirs, bare_socket))}
        for side in (mine, theirs):
            side.idle(20)

        def measure(number: int) -> Measured:
            count = bench.count(300)
            counts = {}
            for side in (mine, theirs):
                bench.say(f"counting, {side.name}")
                counts[side.name] = _per_run(side, meters[side.name], count)
                bench.notes[f"commands per run, {side.name}"] = counts[side.name].pop("by name")
            pairs: dict[str, Pair] = {}
            for figure in FIGURES[:5]:
                base = None if figure.by is Comparison.OURS else counts[theirs.name][figure.name]
                pairs[figure.name] = Pair(counts[mine.name][figure.name], base)
            for figure, value in zip(FIGURES[5:], _memory_per_run(socket, bench.count(1000)), strict=True):
                pairs[figure.name] = Pair(value)
            return pairs

        try:
            yield measure
        finally:
            for meter in meters.values():
                meter.close()


def _per_run(side: Side, meter: Meter, count: int) -> dict[str, Any]:
    """Return the load per run, one after the other, without the load of an idle worker."""
    begin = time.monotonic()
    busy = meter.of(lambda: side.idle(count))
    seconds = time.monotonic() - begin
    idle = meter.of(lambda: time.sleep(1.0))
    busy_commands = meter.commands(lambda: side.idle(count))
    idle_commands = meter.commands(lambda: time.sleep(1.0))

    def per_run(of: Any) -> float:
        return float(max(of(busy) - of(idle) * seconds, 0)) / count

    sent = {name: (number - idle_commands.sent[name] * seconds) / count for name, number in busy_commands.sent.items()}
    inside = {
        name: (number - idle_commands.inside[name] * seconds) / count for name, number in busy_commands.inside.items()
    }
    by_name = {"sent": _rounded(sent), "inside": _rounded(inside)}
    return {
        "commands sent per run": sum(sent.values()),
        "commands within scripts per run": sum(inside.values()),
        "round trips per run": per_run(lambda counts: counts.trips),
        "bytes to the server per run": per_run(lambda counts: counts.received),
        "bytes from the server per run": per_run(lambda counts: counts.replied),
        "by name": by_name,
    }


def _rounded(commands: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in sorted(commands.items()) if value >= 0.05}


def _memory_per_run(socket: Path, count: int) -> tuple[float, float, float]:
    """Return the bytes of a run during its retention, after it (and that of its events), and of its used spec until the
    signature ends."""
    with ours.client(socket) as client, redis(socket) as plain:
        _expire(client)
        before, used_before = _bytes(plain), _bytes(plain, used=True)
        runs = client.map(ours.noop, [{}] * count, environment=ours.HERE)
        client.wait(runs, timeout=ours.TIMEOUT)
        retained = (_bytes(plain) - before) / count
        _expire(client)
        return retained, (_bytes(plain) - before) / count, (_bytes(plain, used=True) - used_before) / count


def _expire(client: Dispatcher) -> None:
    """Remove expired runs, as the reconciler does, by the clock of a month later."""
    records = open_redis(client.settings.url or "", clock_offset=_AFTER_RETENTION)
    try:
        while records.runs.purge():
            pass
    finally:
        records.close()


def _bytes(plain: Any, *, used: bool = False) -> int:
    """Return the memory of all keys that runs add to, which excludes those of live workers and of Celery. ``used``:
    of the keys of used specs; otherwise of all others."""
    of_workers = (b"::workers", b"::beats", b"::beaten", b"::leases")
    names = [name for name in plain.scan_iter(count=10_000) if not name.endswith(of_workers) and b"::" in name]
    names = [name for name in names if (b"::engine:used:" in name) is used]
    pipe = plain.pipeline(transaction=False)
    for name in names:
        pipe.memory_usage(name, samples=0)
    return sum(size or 0 for size in pipe.execute())


PART = Part(name="commands", figures=FIGURES, opened=opened, most_rounds=3)
