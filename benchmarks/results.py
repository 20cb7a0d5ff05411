"""What was measured: kept as JSON with machine, versions and date, and shown as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.bench import Part
from benchmarks.figures import By, Figure, Measured, Pair, Row, row


@dataclass
class Results:
    """All figures of one call. ``rounds`` are by part; ``loads`` the load averages before and after each part."""

    at: str
    machine: dict[str, Any]
    quick: bool = False
    figures: list[Figure] = field(default_factory=list)
    rounds: dict[str, list[Measured]] = field(default_factory=dict)
    loads: dict[str, list[list[float]]] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def add(self, part: Part, found: Sequence[Measured], *, loads: list[list[float]]) -> None:
        """Add a part."""
        self.figures += part.figures
        self.rounds[part.name] = list(found)
        self.loads[part.name] = loads

    def merge(self, newer: Results) -> None:
        """Take over the parts of another call, in place of what is here of the same parts.

        Raises:
            ValueError: that one was measured on another machine, with other versions, or with other counts.
        """
        if (self.machine, self.quick) != (newer.machine, newer.quick):
            raise ValueError("results of different machines, versions or counts don't belong together")
        again = {name for found in newer.rounds.values() for name in found[0]}
        self.at = newer.at
        self.figures = [figure for figure in self.figures if figure.name not in again] + newer.figures
        self.rounds |= newer.rounds
        self.loads |= newer.loads
        self.samples |= newer.samples
        self.notes |= newer.notes

    def in_order(self, names: Sequence[str]) -> None:
        """Put the figures in the order of their parts."""
        place = {figure: names.index(part) for part, found in self.rounds.items() for figure in found[0]}
        self.figures.sort(key=lambda figure: place[figure.name])

    @property
    def rows(self) -> list[Row]:
        """A row per figure, in order."""
        return [row(figure, self._rounds_of(figure)) for figure in self.figures]

    def load_of(self, figure: Figure) -> float:
        """The greatest load average over a minute, before and after the figure's part."""
        part = next(name for name, found in self.rounds.items() if figure.name in found[0])
        return max(one[0] for one in self.loads[part])

    def save(self, path: Path) -> None:
        """Write it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what :meth:`save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        data["figures"] = [Figure(**{**one, "by": By(one["by"])}) for one in data["figures"]]
        data["rounds"] = {
            part: [{name: Pair(**pair) for name, pair in found.items()} for found in rounds]
            for part, rounds in data["rounds"].items()
        }
        return cls(**data)

    def _rounds_of(self, figure: Figure) -> list[Measured]:
        return next(found for found in self.rounds.values() if figure.name in found[0])


def rows_of(part: Part, found: Sequence[Measured]) -> list[Row]:
    """A part's rows."""
    return [row(figure, found) for figure in part.figures]


def cells(row: Row) -> tuple[str, ...]:
    """A row for people: figure, ours, base, value, its least and greatest, target, verdict."""
    figure = row.figure
    digits = 2 if figure.by is By.RATIO and row.base is not None else figure.digits
    spread = f"{row.least:,.{digits}f}..{row.most:,.{digits}f}"
    return (
        f"{figure.name}, {figure.unit}" if figure.unit else figure.name,
        f"{row.ours:,.{figure.digits}f}",
        "" if row.base is None else f"{row.base:,.{figure.digits}f}",
        f"{row.value:,.{digits}f}",
        spread,
        figure.target,
        "" if figure.bound is None else "pass" if row.passes else "fail",
    )


HEADS = ("figure", "ours", "base", "value", "rounds", "target", "verdict")


def table(results: Results) -> Table:
    """The table of all figures."""
    shown = Table(title="flow-dispatcher; base is bare Celery unless the figure says otherwise")
    for name in HEADS:
        shown.add_column(name, no_wrap=name != "figure", justify="left" if name == "figure" else "right")
    for one in results.rows:
        *words, verdict = cells(one)
        colour = {"pass": "[green]pass[/]", "fail": "[red]fail[/]"}.get(verdict, "")
        shown.add_row(*words, colour)
    return shown
