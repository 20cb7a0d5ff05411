"""The results: saved as JSON with machine, versions and date, and shown as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.bench import Part
from benchmarks.figures import Comparison, Figure, Measured, Pair, ResultRow, row


@dataclass
class BenchmarkResults:
    """All figures of one execution, or of several that were merged. ``rounds`` are by part; ``loads`` are the load
    averages before and after each part. ``origins`` has the day and the machine of the parts that were measured at
    another time than ``at``, on another machine than ``machine``."""

    at: str
    machine: dict[str, Any]
    quick: bool = False
    figures: list[Figure] = field(default_factory=list)
    rounds: dict[str, list[Measured]] = field(default_factory=dict)
    loads: dict[str, list[list[float]]] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, part: Part, rounds: Sequence[Measured], *, loads: list[list[float]]) -> None:
        """Add a part."""
        self.figures += part.figures
        self.rounds[part.name] = list(rounds)
        self.loads[part.name] = loads

    def merge(self, newer: BenchmarkResults) -> None:
        """Take over the parts of another execution, which replace the same parts here.

        A part measures both of its sides on one machine, so its ratios keep their meaning beside parts of another one.

        Raises:
            ValueError: it was measured with other counts.
        """
        if self.quick != newer.quick:
            raise ValueError("results of different counts don't belong together")
        if self.machine != newer.machine:
            older = {"at": self.at, "machine": self.machine}
            self.origins = dict.fromkeys(self.rounds, older) | self.origins
        self.origins = {part: origin for part, origin in self.origins.items() if part not in newer.rounds}
        self.machine = newer.machine
        replaced = {name for rounds in newer.rounds.values() for name in rounds[0]}
        self.at = newer.at
        self.figures = [figure for figure in self.figures if figure.name not in replaced] + newer.figures
        self.rounds |= newer.rounds
        self.loads |= newer.loads
        self.samples |= newer.samples
        self.notes |= newer.notes

    def sort_by_part(self, names: Sequence[str]) -> None:
        """Sort the figures by the order of their parts."""
        place = {figure: names.index(part) for part, rounds in self.rounds.items() for figure in rounds[0]}
        self.figures.sort(key=lambda figure: place[figure.name])

    @property
    def rows(self) -> list[ResultRow]:
        """The rows of all figures, in order."""
        return [row(figure, self._rounds_of(figure)) for figure in self.figures]

    def save(self, path: Path) -> None:
        """Write the results as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> BenchmarkResults:
        """Read what :meth:`save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        data["figures"] = [Figure(**{**fields, "by": Comparison(fields["by"])}) for fields in data["figures"]]
        data["rounds"] = {
            part: [{name: Pair(**pair) for name, pair in measured.items()} for measured in rounds]
            for part, rounds in data["rounds"].items()
        }
        return cls(**data)

    def _rounds_of(self, figure: Figure) -> list[Measured]:
        return next(rounds for rounds in self.rounds.values() if figure.name in rounds[0])


def rows_of(part: Part, rounds: Sequence[Measured]) -> list[ResultRow]:
    """Return the rows of a part."""
    return [row(figure, rounds) for figure in part.figures]


def cells(row: ResultRow) -> tuple[str, ...]:
    """Return the cells of a row: figure, ours, base, value, its minimum and maximum, target, verdict."""
    figure = row.figure
    digits = 2 if figure.by is Comparison.RATIO and row.base is not None else figure.digits
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


def table(results: BenchmarkResults) -> Table:
    """Return the table of all figures."""
    table = Table(title="flow-dispatcher; base is bare Celery unless the figure says otherwise")
    for name in HEADS:
        table.add_column(name, no_wrap=name != "figure", justify="left" if name == "figure" else "right")
    for result_row in results.rows:
        *texts, verdict = cells(result_row)
        coloured = {"pass": "[green]pass[/]", "fail": "[red]fail[/]"}.get(verdict, "")
        table.add_row(*texts, coloured)
    return table
