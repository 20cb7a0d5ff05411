"""Verdicts over rounds, and the page made of them. ``make bench`` does the measuring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import page
from benchmarks.bench import Benchmark, Measure, Part, turns
from benchmarks.explanations import explanation
from benchmarks.figures import Comparison, Figure, Measured, Pair, row
from benchmarks.measuring import measured
from benchmarks.parts import parts
from benchmarks.request_counter import verb_and_kind
from benchmarks.results import BenchmarkResults, cells
from benchmarks.sampling import OTHERS, layers

FIGURES = (
    Figure(name="more", unit="runs/s", bound=1.5, more_is_better=True),
    Figure(name="less", unit="MB", bound=60, by=Comparison.OURS, base=""),
)


@contextmanager
def _opened(bench: Benchmark) -> Iterator[Measure]:
    def measure(number: int) -> Measured:
        bench.keep("depth", [number])
        return {"more": Pair(ours=3.0 + number, base=2.0), "less": Pair(ours=59.0 + number)}

    yield measure


@contextmanager
def _opened_third(bench: Benchmark) -> Iterator[Measure]:
    yield lambda number: {"third": Pair(1.0)}


@contextmanager
def _opened_submit(bench: Benchmark) -> Iterator[Measure]:
    yield lambda number: {"submit": Pair(1.0, 1.0)}


PART = Part(name="scripted", figures=FIGURES, opened=_opened)


def test_every_round_of_a_part_is_measured_and_kept(tmp_path: Path) -> None:
    results = measured([PART], rounds=3, quick=False, out=Console(quiet=True))
    results.save(tmp_path / "data.json")

    again = BenchmarkResults.load(tmp_path / "data.json")
    assert again == results
    assert [measured["more"].ours for measured in again.rounds["scripted"]] == [3.0, 4.0, 5.0]
    assert again.samples == {"depth": [0, 1, 2]}
    assert [result.passes for result in again.rows] == [True, True]


def test_a_part_may_bound_its_rounds() -> None:
    once = Part(name="once", figures=FIGURES, opened=_opened, most_rounds=1)

    results = measured([once], rounds=5, quick=True, out=Console(quiet=True))

    assert len(results.rounds["once"]) == 1
    assert results.quick


def test_a_part_that_lacks_something_is_left_out_with_the_reason() -> None:
    lacking = Part(name="lacking", figures=FIGURES, opened=_opened, lacks=lambda: "there is no cluster")
    out = Console(record=True, quiet=False, file=StringIO())

    results = measured([lacking], rounds=1, quick=True, out=out)

    assert not results.rounds
    assert not results.rows
    assert "lacking: left out: there is no cluster" in out.export_text()


def test_parts_on_a_cluster_are_left_out_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    clustered = [part for part in parts() if part.name.startswith("kubernetes-")]

    assert [part.lacks() for part in clustered] == ["KUBECONFIG names no cluster"] * 3


@pytest.mark.parametrize(
    ("line", "verb_kind"),
    [
        ("POST /apis/batch/v1/namespaces/a/jobs?fieldValidation=Strict HTTP/1.1", "create jobs"),
        ("DELETE /apis/batch/v1/namespaces/a/jobs/b HTTP/1.1", "delete jobs"),
        ("GET /apis/batch/v1/namespaces/a/jobs/b HTTP/1.1", "get jobs"),
        ("GET /api/v1/namespaces/a/pods?limit=500&labelSelector=instance%3Dx HTTP/1.1", "list pods"),
        ("GET /api/v1/namespaces/a/pods?labelSelector=job-name%3Db HTTP/1.1", "find pods"),
        ("GET /api/v1/namespaces/a/pods?watch=1&resourceVersion=7 HTTP/1.1", "watch pods"),
        ("GET /api/v1/namespaces/a/pods/b/log?container=flow HTTP/1.1", "get pods/log"),
        ("GET /version HTTP/1.1", "GET /version"),
        ("GET /api/v1/namespaces/kube-system HTTP/1.1", "GET /api/v1/namespaces/kube-system"),
        ("GET /api/v1/namespaces/a/configmaps/kube-root-ca.crt HTTP/1.1", "get configmaps"),
    ],
)
def test_requests_of_the_api_server_are_told_apart(line: str, verb_kind: str) -> None:
    assert verb_and_kind(line) == verb_kind


def test_parts_of_several_calls_become_one() -> None:
    other = Part(name="other", figures=(Figure(name="third", unit=""),), opened=_opened_third)
    first = measured([other, PART], rounds=1, quick=True, out=Console(quiet=True))
    later = measured([PART], rounds=3, quick=True, out=Console(quiet=True))

    first.merge(later)
    first.sort_by_part(["scripted", "other"])

    assert [row.figure.name for row in first.rows] == ["more", "less", "third"]
    assert [len(first.rounds[name]) for name in ("scripted", "other")] == [3, 1]
    assert first.samples["depth"] == [0, 1, 2]
    with pytest.raises(ValueError, match="different"):
        first.merge(measured([PART], rounds=1, quick=False, out=Console(quiet=True)))


def test_parts_of_two_machines_say_where_each_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(page, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr(page, "IMAGES", tmp_path / "images")
    other = Part(name="other", figures=(Figure(name="third", unit=""),), opened=_opened_third)
    both = measured([other, PART], rounds=1, quick=True, out=Console(quiet=True))
    both.at, both.machine = "2026-01-01T00:00:00", {**both.machine, "system": "an older kernel"}
    later = measured([PART], rounds=1, quick=True, out=Console(quiet=True))

    both.merge(later)
    both.save(tmp_path / "results.json")
    read = BenchmarkResults.load(tmp_path / "results.json")

    assert list(read.origins) == ["other"]
    assert read.machine == later.machine
    read.samples.clear()
    page.write(read)
    text = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "On 2026-01-01, " in text
    assert "an older kernel" in text.partition(": other. ")[0]


def test_a_value_is_the_median_of_the_rounds_values() -> None:
    rounds = [{"more": Pair(2, 1)}, {"more": Pair(9, 3)}, {"more": Pair(40, 10)}]

    result = row(FIGURES[0], rounds)

    assert (result.ours, result.base) == (9, 3)
    assert (result.least, result.value, result.most) == (2, 3, 4)


@pytest.mark.parametrize(
    ("by", "more_is_better", "pair", "passes"),
    [
        (Comparison.RATIO, True, Pair(15, 10), True),
        (Comparison.RATIO, True, Pair(14, 10), False),
        (Comparison.RATIO, False, Pair(15, 10), True),
        (Comparison.RATIO, False, Pair(16, 10), False),
        (Comparison.DIFFERENCE, False, Pair(11.5, 10), True),
        (Comparison.DIFFERENCE, False, Pair(11.6, 10), False),
        (Comparison.OURS, False, Pair(1.5), True),
        (Comparison.OURS, False, Pair(1.6, 10), False),
    ],
)
def test_a_bound_has_a_direction_and_a_base(by: Comparison, more_is_better: bool, pair: Pair, passes: bool) -> None:
    figure = Figure(name="x", unit="s", bound=1.5, more_is_better=more_is_better, by=by)

    assert figure.passes(round(figure.value(pair), 6)) is passes


def test_a_figure_without_a_bound_is_only_shown() -> None:
    result = row(Figure(name="x", unit="B"), [{"x": Pair(1, 2)}])

    assert result.passes
    assert cells(result) == ("x, B", "1.0", "2.0", "0.50", "0.50..0.50", "", "")


def test_sides_take_turns_at_going_first() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    first = turns(0, {"ours": lambda: side("ours"), "base": lambda: side("base")})
    second = turns(1, {"ours": lambda: side("ours"), "base": lambda: side("base")})

    assert order == ["ours", "base", "base", "ours"]
    assert (first, second) == ({"ours": 1.0, "base": 2.0}, {"ours": 4.0, "base": 3.0})


def test_the_parts_have_names_and_figures_of_their_own() -> None:
    all_parts = parts()
    names = [figure.name for part in all_parts for figure in part.figures]

    assert len({part.name for part in all_parts}) == len(all_parts)
    assert len(set(names)) == len(names)


def test_the_page_is_made_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(page, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr(page, "IMAGES", tmp_path / "images")
    results = measured([PART], rounds=2, quick=False, out=Console(quiet=True))
    results.samples |= {
        "depth": [0, 10],
        "submit at depth (ms)": [1, 1],
        "claim at depth (ms)": [1, 1],
        "start, ours (ms)": [1, 2],
    }

    page.write(results)

    text = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "| more, runs/s | 3.5 | 2.0 | 1.75 | 1.50..2.00 | ≥ 1.5 times | pass |" in text
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["speed-start.svg", "speed-waiting.svg"]


def test_the_page_says_which_figures_are_missed_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(page, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr(page, "IMAGES", tmp_path / "images")
    missed = Part(name="missed", figures=(Figure(name="submit", unit="", bound=0.5),), opened=_opened_submit)
    other = Part(
        name="other", figures=(Figure(name="third", unit="", bound=2.0, by=Comparison.OURS),), opened=_opened_third
    )

    page.write(measured([missed, other], rounds=1, quick=False, out=Console(quiet=True)))

    missed_section = (tmp_path / "speed.md").read_text(encoding="utf-8").partition("## Out of bounds")[2]
    assert f"- **submit.** {explanation('submit')}" in missed_section
    assert "**third" not in missed_section


def test_samples_count_for_the_innermost_layer() -> None:
    stacks = "main (workers/__main__.py:1);call (dispatcher/records/redis/connection/client.py:2);"
    stacks += "read (redis/connection.py:3) 4\n"
    stacks += "main (celery/bin.py:1);dumps (json/encoder.py:2) 2\nmain (threading.py:1) 1\nnot a stack\n"
    assert layers(stacks) == {"redis-py": 4, "Celery with kombu and billiard": 2, OTHERS: 1}
    assert layers("begin (dispatcher/records/redis/runs.py:9) 3") == {"records: changes, scripts, replies": 3}
