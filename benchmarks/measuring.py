"""Goes through the parts, round by round, and shows where it is."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from benchmarks.bench import Bench, Part
from benchmarks.figures import Measured
from benchmarks.machine import described, load
from benchmarks.results import Results, rows_of


def measured(parts: Sequence[Part], *, rounds: int, quick: bool, out: Console) -> Results:
    """Every part's rounds; prints each figure as soon as its part is done."""
    bench = Bench(quick=quick)
    results = Results(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        machine=described(),
        quick=quick,
        samples=bench.samples,
        notes=bench.notes,
    )
    for place, part in enumerate(parts, start=1):
        if reason := part.lacks():
            out.print(f"{part.name}: left out: {reason}")
            continue
        before = load()
        found = _part(part, bench, rounds, f"part {place} of {len(parts)}", out)
        results.add(part, found, loads=[before, load()])
        for row in rows_of(part, found):
            verdict = "" if row.figure.bound is None else "  [green]pass[/]" if row.passes else "  [red]fail[/]"
            out.print(f"{row.figure.name}: {row.ours:,.{row.figure.digits}f} {row.figure.unit}{verdict}")
    return results


def _part(part: Part, bench: Bench, rounds: int, place: str, out: Console) -> list[Measured]:
    count = min(rounds, part.most_rounds or rounds)
    found: list[Measured] = []
    with out.status(f"{place}, {part.name}") as status:
        bench.say = lambda what: status.update(f"{place}, {part.name}: {what}")
        with part.opened(bench) as measure:
            for number in range(count):
                bench.say = lambda what, number=number: status.update(  # type: ignore[misc]
                    f"{place}, {part.name}, round {number + 1} of {count}: {what}"
                )
                bench.say("measuring")
                found.append(measure(number))
    return found
