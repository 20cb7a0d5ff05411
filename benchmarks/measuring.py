"""Measure the parts, round by round, and show the progress."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from benchmarks.bench import Benchmark, Part
from benchmarks.figures import Measured
from benchmarks.machine import description, load
from benchmarks.results import BenchmarkResults, rows_of


def measured(parts: Sequence[Part], *, rounds: int, quick: bool, out: Console) -> BenchmarkResults:
    """Measure all rounds of all parts. Print the figures of each part as soon as it is done."""
    bench = Benchmark(quick=quick)
    results = BenchmarkResults(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        machine=description(),
        quick=quick,
        samples=bench.samples,
        notes=bench.notes,
    )
    for place, part in enumerate(parts, start=1):
        if reason := part.lacks():
            out.print(f"{part.name}: left out: {reason}")
            continue
        before = load()
        measurements = _measure_part(part, bench, rounds, f"part {place} of {len(parts)}", out)
        results.add(part, measurements, loads=[before, load()])
        for row in rows_of(part, measurements):
            verdict = "" if row.figure.bound is None else "  [green]pass[/]" if row.passes else "  [red]fail[/]"
            out.print(f"{row.figure.name}: {row.ours:,.{row.figure.digits}f} {row.figure.unit}{verdict}")
    return results


def _measure_part(part: Part, bench: Benchmark, rounds: int, place: str, out: Console) -> list[Measured]:
    count = min(rounds, part.most_rounds or rounds)
    measurements: list[Measured] = []
    with out.status(f"{place}, {part.name}") as status:
        bench.say = lambda step: status.update(f"{place}, {part.name}: {step}")
        with part.opened(bench) as measure:
            for number in range(count):
                bench.say = lambda step, number=number: status.update(  # type: ignore[misc]
                    f"{place}, {part.name}, round {number + 1} of {count}: {step}"
                )
                bench.say("measuring")
                measurements.append(measure(number))
    return measurements
