"""What ``make chaos`` found: kept as JSON with machine, versions and date, and judged per row and per figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.fault_rows import ROWS
from tests.chaos.figures import Figure


@dataclass(frozen=True, kw_only=True)
class Told:
    """How one test ended. ``rows`` are those of the fault matrix that it shows, ``reason`` is why it was skipped."""

    test: str
    outcome: str
    seconds: float
    rows: tuple[int, ...] = ()
    reason: str = ""

    @property
    def name(self) -> str:
        """Short enough for a table."""
        return self.test.rpartition("/")[2]


@dataclass(frozen=True)
class Measured:
    """A figure with its samples, in seconds."""

    figure: Figure
    samples: tuple[float, ...]

    @property
    def passes(self) -> bool:
        """Return True if its bound was kept."""
        return self.figure.held(self.samples)


@dataclass(frozen=True, kw_only=True)
class Played:
    """When a part was played, and whether in the long form of ``make chaos`` or in that of every ``make test``."""

    at: str
    long: bool


@dataclass
class Results:
    """Everything of one call. ``soaks`` are reports of :mod:`tests.chaos.soak`, ``notes`` what else was counted."""

    at: str
    machine: dict[str, Any]
    parts: dict[str, Played] = field(default_factory=dict)
    tests: list[Told] = field(default_factory=list)
    figures: list[Measured] = field(default_factory=list)
    soaks: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def take(self, lines: Iterable[str]) -> None:
        """Add what tests wrote."""
        for line in lines:
            found = json.loads(line)
            what = found.pop("what")
            if what == "test":
                self.tests.append(Told(**{**found, "rows": tuple(found["rows"])}))
            elif what == "figure":
                samples = tuple(found.pop("samples"))
                self.figures.append(Measured(Figure(**found), samples))
            elif what == "soak":
                self.soaks.append(found)
            else:
                self.notes[what] = found

    def of_row(self, row: int) -> list[Told]:
        """The tests that show a row."""
        return [told for told in self.tests if row in told.rows]

    def verdict(self, row: int) -> str:
        """Of a row: no test, skipped, pass or fail. What was skipped is left out, unless all was: that is no pass."""
        every = {told.outcome for told in self.of_row(row)}
        found = every - {"skipped"}
        if not found:
            return "skipped" if every else "no test"
        return "pass" if found == {"passed"} else "fail"

    def skipped(self, row: int) -> list[Told]:
        """Tests of a row that weren't played; a table says so beside its verdict."""
        return [told for told in self.of_row(row) if told.outcome == "skipped"]

    def missing(self, rows: Iterable[int] = ROWS) -> dict[str, list[int]]:
        """Rows of which tests were skipped, by the reason."""
        found: dict[str, list[int]] = {}
        for row in rows:
            for reason in sorted({told.reason for told in self.skipped(row)}):
                found.setdefault(reason, []).append(row)
        return found

    @property
    def others(self) -> list[Told]:
        """Tests of no row."""
        return [told for told in self.tests if not told.rows]

    def by_file(self) -> dict[str, list[Told]]:
        """The tests of no row, by their file."""
        found: dict[str, list[Told]] = {}
        for told in self.others:
            found.setdefault(told.name.partition("::")[0], []).append(told)
        return found

    def passes(self, rows: Iterable[int] = ROWS) -> bool:
        """Return True if nothing failed, no bound was broken and no row is without a test. A row that was skipped
        counts as neither: :meth:`missing` is to be said beside."""
        return (
            all(told.outcome in {"passed", "skipped"} for told in self.tests)
            and all(one.passes for one in self.figures)
            and all(self.verdict(row) in {"pass", "skipped"} for row in rows)
        )

    def join(self, other: Results) -> None:
        """Take in what another call found, of parts that this one did not play, or of tests that it played again. What
        failed before stays."""
        self.parts |= other.parts
        told = {one.test for one in other.tests if one.outcome != "skipped"}
        stay = [one for one in self.tests if one.outcome == "failed" or one.test not in told]
        known = {one.test for one in stay}
        self.tests = stay + [one for one in other.tests if one.outcome != "skipped" or one.test not in known]
        self.figures += other.figures
        self.soaks += other.soaks
        self.notes |= other.notes

    def save(self, path: Path) -> None:
        """Write it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what :meth:`save` wrote."""
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tests = [Told(**{**one, "rows": tuple(one["rows"])}) for one in data["tests"]]
        figures = [Measured(Figure(**one["figure"]), tuple(one["samples"])) for one in data["figures"]]
        parts = {name: Played(**one) for name, one in data["parts"].items()}
        return cls(**{**data, "tests": tests, "figures": figures, "parts": parts})
