"""The results of ``make chaos``: verdicts, joined and saved, and the page that is made of them."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import page
from tests.chaos.__main__ import tables
from tests.chaos.distribution import percentile, shown
from tests.chaos.fault_rows import ROWS
from tests.chaos.figures import VARIABLE, Figure
from tests.chaos.results import Played, Results
from tests.conftest import PYTHON

MACHINE = {
    "system": "Linux",
    "processor": "a processor",
    "cores": 2,
    "memory_gb": 4,
    "python": "3.11",
    "packages": {"redis": "8"},
}

SOAK = {
    "seed": 7,
    "seconds": 90.0,
    "folder": "",
    "violations": [],
    "counts": {"runs": 500, "faults": 2, "faults, black hole": 1, "faults, worker killed": 1},
    "recoveries": {"black hole": [0.5], "worker killed": [0.1, 2.0]},
}

A_SOAK = {"what": "soak", **SOAK}


def _test(name: str, outcome: str = "passed", *rows: int) -> str:
    return json.dumps({"what": "test", "test": f"tests/chaos/{name}", "outcome": outcome, "seconds": 1.0, "rows": rows})


def _figure(bound: float, *samples: float) -> str:
    return json.dumps({"what": "figure", "name": "taken over", "bound": bound, "share": 99, "samples": samples})


def _results(*lines: str) -> Results:
    results = Results(at="2026-01-02T03:04:05+00:00", machine=dict(MACHINE))
    results.take(lines)
    return results


def _every_row(**outcomes: str) -> list[str]:
    return [_test(f"t.py::row_{row}", outcomes.get(f"row_{row}", "passed"), row) for row in ROWS]


def test_all_rows_passed() -> None:
    assert _results(*_every_row(), _figure(45.0, 30.0, 40.0)).passes()


@pytest.mark.parametrize("outcome", ["failed", "error"])
def test_a_failed_test_fails_its_row(outcome: str) -> None:
    results = _results(*_every_row(row_9=outcome))
    assert results.verdict(9) == "fail"
    assert results.verdict(10) == "pass"
    assert not results.passes()


def test_a_row_of_many_tests_passes_if_all_do() -> None:
    assert _results(_test("t.py::a", "passed", 3, 4), _test("t.py::b", "failed", 3)).verdict(3) == "fail"
    assert _results(_test("t.py::a", "passed", 3, 4), _test("t.py::b", "skipped", 3)).verdict(3) == "pass"


def test_a_row_without_a_test_is_no_pass() -> None:
    results = _results(*_every_row()[1:])
    assert results.verdict(1) == "no test"
    assert not results.passes()


def test_a_row_that_was_skipped_is_no_pass_and_is_said_with_its_reason(tmp_path: Path) -> None:
    """On a machine without a cluster; a test that was played beside it doesn't hide what wasn't."""
    results = _results(*_every_row(row_22="skipped"), _test("u.py::b", "skipped", 23))
    results.tests = [
        replace(test, reason="there is no cluster") if test.outcome == "skipped" else test for test in results.tests
    ]
    assert [results.verdict(row) for row in (22, 23)] == ["skipped", "pass"]
    assert results.missing() == {"there is no cluster": [22, 23]}
    assert results.passes()
    page.write(results, tmp_path)
    text = (tmp_path / "faults.md").read_text()
    assert f"| 22 | {ROWS[22]} | 0 | 1 | skipped |" in text
    assert f"| 23 | {ROWS[23]} | 1 | 1 | pass |" in text
    assert "Skipped, and not part of the verdicts: tests of rows 22, 23. there is no cluster." in text


def test_a_later_call_plays_what_an_earlier_one_skipped() -> None:
    results = _results(_test("t.py::a", "skipped", 22), _test("t.py::b", "failed", 22))
    results.join(_results(_test("t.py::a", "passed", 22), _test("t.py::b", "passed", 22)))
    assert [(test.name, test.outcome) for test in results.tests] == [
        ("t.py::b", "failed"),
        ("t.py::a", "passed"),
        ("t.py::b", "passed"),
    ]


def test_a_figure_out_of_its_bound_is_no_pass() -> None:
    assert not _results(*_every_row(), _figure(45.0, 30.0, 46.0)).passes()
    assert not Figure("none", bound=1.0).held([])


def test_a_test_of_no_row_counts_too() -> None:
    assert not _results(*_every_row(), _test("test_soak.py::soak", "failed")).passes()


def test_results_are_read_as_they_were_saved(tmp_path: Path) -> None:
    results = _results(*_every_row(), _figure(45.0, 30.0), json.dumps(A_SOAK))
    results.parts["soak"] = Played(at=results.at, long=True)
    results.save(tmp_path / "one.json")
    assert Results.load(tmp_path / "one.json") == results


def test_results_of_parts_are_joined() -> None:
    results, other = _results(_test("t.py::a"), _figure(45.0, 30.0)), _results(_test("u.py::b"), json.dumps(A_SOAK))
    results.parts["rows"], other.parts["soak"] = Played(at=results.at, long=False), Played(at=results.at, long=True)
    results.join(other)
    assert {name: part.long for name, part in results.parts.items()} == {"rows": False, "soak": True}
    assert [test.name for test in results.tests] == ["t.py::a", "u.py::b"]
    assert [len(results.figures), len(results.soaks)] == [1, 1]


def test_the_page_says_rows_figures_and_soak(tmp_path: Path) -> None:
    soak = json.dumps(A_SOAK)
    steps = json.dumps({"what": "steps on memory", "done": 100_001, "seed": 1})
    counts = {"failpoints": 40, "cases": 1234, "runs": 2345, "deaths": 99, "wrong": 0}
    matrix = json.dumps({"what": "matrix", **counts})
    page.write(_results(*_every_row(row_2="failed"), _figure(45.0, 30.0, 41.5), soak, steps, matrix), tmp_path)
    text = (tmp_path / "faults.md").read_text()
    assert f"| 1 | {ROWS[1]} | 1 | 0 | pass |" in text
    assert f"| 2 | {ROWS[2]} | 1 | 0 | fail |" in text
    assert "| taken over | 2 | 30.0 | 30.0 | 41.5 | 41.5 | 41.5 | p99 ≤ 45 s | pass |" in text
    assert "500 runs and 2 faults in 2 minutes (seed 7): **0 violations**" in text
    assert "100,001 steps on memory" in text
    assert "fewer than 0.006 of all runs" in text
    assert "40 failpoints, 1,234 cases, 2,345 runs; 99 workers died. Violations: **0**" in text
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "faults-recovery.svg",
        "faults-kinds.svg",
        "faults-soak.svg",
    }


@pytest.mark.parametrize("long", [True, False])
def test_the_page_says_of_each_part_in_which_form_it_was_played(tmp_path: Path, long: bool) -> None:
    steps = json.dumps({"what": "steps on memory", "done": 100_001, "seed": 1})
    matrix = json.dumps({"what": "matrix", "failpoints": 1, "cases": 1, "runs": 1, "deaths": 1, "wrong": 0})
    results = _results(*_every_row(), _figure(45.0, 30.0), json.dumps(A_SOAK), steps, matrix)
    results.parts = {part: Played(at=results.at, long=long) for part in page.FORMS}
    page.write(results, tmp_path)
    text = (tmp_path / "faults.md").read_text()
    for there, other in page.FORMS.values():
        assert there in text
        assert other in text
    form = "Run in the long form (2026-01-02 03:04 UTC)" if long else "Run in the short form"
    assert text.count(form) == len(page.FORMS)


TESTS = """
import pytest

@pytest.mark.row(3, 4)
def test_well(): pass

@pytest.mark.row(5)
def test_badly(): assert False

@pytest.fixture
def broken(): raise RuntimeError

def test_without_its_fixture(broken): pass

@pytest.mark.skip(reason="there is none")
def test_left_out(): pass
"""


def test_pytest_tells_how_each_test_ended(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = row: shows a row\n")
    outcomes = tmp_path / "outcomes.jsonl"
    environ = {**os.environ, VARIABLE: str(outcomes), "PYTHONPATH": str(page.ROOT)}
    command = [PYTHON, "-m", "pytest", "-q", "-p", "tests.chaos.outcome_plugin", str(tmp_path)]
    subprocess.run(command, env=environ, cwd=tmp_path, check=False, stdout=subprocess.DEVNULL)
    results = _results(*outcomes.read_text().splitlines())
    assert [(test.test.partition("::")[2], test.outcome, test.rows) for test in results.tests] == [
        ("test_well", "passed", (3, 4)),
        ("test_badly", "failed", (5,)),
        ("test_without_its_fixture", "failed", ()),
        ("test_left_out", "skipped", ()),
    ]
    assert results.tests[-1].reason == "there is none"


def test_tables_show_rows_only_where_they_were_played() -> None:
    results = _results(_test("test_soak.py::soak"), _figure(45.0, 30.0))
    assert [_title(table) for table in tables(results, rows=False)] == ["figures", "other tests"]
    assert next(_title(table) for table in tables(results, rows=True)) == "rows of the fault matrix"


def test_tests_of_no_row_are_counted_by_their_file_and_named_where_they_failed() -> None:
    results = _results(_test("test_a.py::one"), _test("test_a.py::two", "failed"), _test("test_b.py::three", "skipped"))
    [table] = tables(results, rows=False)
    assert [list(column.cells) for column in table.columns] == [
        ["test_a.py", "test_b.py"],
        ["2", "1"],
        ["2", "1"],
        ["[red]fail[/]\ntest_a.py::two", "[green]pass[/]"],
    ]


def _title(table: Any) -> str:
    return str(table.title)


def test_a_distribution_is_read_by_percentiles() -> None:
    samples = [float(n) for n in range(1, 101)]
    assert [percentile(samples, share) for share in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0], 1) == 3.0
    assert shown([1.0, 3.0]) == "min 1.00  p50 1.00  p95 3.00  p99 3.00  max 3.00 s  (n=2)"
    assert shown([]) == "no samples"
