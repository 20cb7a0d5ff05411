"""Results of ``make chaos``: stored as JSON with machine, versions and date, with a verdict per row and per figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.fault_rows import ROWS
from tests.chaos.figures import Figure


@dataclass(frozen=True, kw_only=True)
class ReportedTest:
    """Outcome of one test. ``rows`` are its rows of the fault matrix, ``reason`` is why it was skipped."""

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
    tests: list[ReportedTest] = field(default_factory=list)
    figures: list[Measured] = field(default_factory=list)
    soaks: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def take(self, lines: Iterable[str]) -> None:
        """Add what tests wrote."""
        for line in lines:
            fields = json.loads(line)
            section = fields.pop("what")
            if section == "test":
                self.tests.append(ReportedTest(**{**fields, "rows": tuple(fields["rows"])}))
            elif section == "figure":
                samples = tuple(fields.pop("samples"))
                self.figures.append(Measured(Figure(**fields), samples))
            elif section == "soak":
                self.soaks.append(fields)
            else:
                self.notes[section] = fields

    def of_row(self, row: int) -> list[ReportedTest]:
        """The tests that show a row."""
        return [test for test in self.tests if row in test.rows]

    def verdict(self, row: int) -> str:
        """Of a row: no test, skipped, pass or fail. What was skipped is left out, unless all was: that is no pass."""
        every = {test.outcome for test in self.of_row(row)}
        outcomes = every - {"skipped"}
        if not outcomes:
            return "skipped" if every else "no test"
        return "pass" if outcomes == {"passed"} else "fail"

    def skipped(self, row: int) -> list[ReportedTest]:
        """Tests of a row that weren't played; a table says so beside its verdict."""
        return [test for test in self.of_row(row) if test.outcome == "skipped"]

    def missing(self, rows: Iterable[int] = ROWS) -> dict[str, list[int]]:
        """Rows of which tests were skipped, by the reason."""
        rows_by_reason: dict[str, list[int]] = {}
        for row in rows:
            for reason in sorted({test.reason for test in self.skipped(row)}):
                rows_by_reason.setdefault(reason, []).append(row)
        return rows_by_reason

    @property
    def others(self) -> list[ReportedTest]:
        """Tests of no row."""
        return [test for test in self.tests if not test.rows]

    def by_file(self) -> dict[str, list[ReportedTest]]:
        """The tests of no row, by their file."""
        tests_by_file: dict[str, list[ReportedTest]] = {}
        for test in self.others:
            tests_by_file.setdefault(test.name.partition("::")[0], []).append(test)
        return tests_by_file

    def passes(self, rows: Iterable[int] = ROWS) -> bool:
        """Return True if nothing failed, no bound was broken and no row is without a test. A row that was skipped
        counts as neither: :meth:`missing` is to be said beside."""
        return (
            all(test.outcome in {"passed", "skipped"} for test in self.tests)
            and all(figure.passes for figure in self.figures)
            and all(self.verdict(row) in {"pass", "skipped"} for row in rows)
        )

    def join(self, other: Results) -> None:
        """Take in what another call found, of parts that this one did not play, or of tests that it played again. What
        failed before stays."""
        self.parts |= other.parts
        run_again = {test.test for test in other.tests if test.outcome != "skipped"}
        stay = [test for test in self.tests if test.outcome == "failed" or test.test not in run_again]
        kept_names = {test.test for test in stay}
        self.tests = stay + [test for test in other.tests if test.outcome != "skipped" or test.test not in kept_names]
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
        tests = [ReportedTest(**{**test, "rows": tuple(test["rows"])}) for test in data["tests"]]
        figures = [Measured(Figure(**figure["figure"]), tuple(figure["samples"])) for figure in data["figures"]]
        parts = {name: Played(**part) for name, part in data["parts"].items()}
        return cls(**{**data, "tests": tests, "figures": figures, "parts": parts})
