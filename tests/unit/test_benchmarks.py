"""How rounds become ratios, and ratios pass or fail. What is measured is measured by ``make bench``."""

from __future__ import annotations

import pytest

from benchmarks.figures import FIGURES, Figure, Measured, Sizes, rows, steps
from benchmarks.side import Idle


class _Scripted:
    """A side that answers at once."""

    name = "scripted"

    def completed(self, count: int) -> float:
        return float(count)

    def submitted(self, count: int) -> float:
        return float(count)

    def mapped(self, count: int) -> float:
        return float(count)

    def idle(self, count: int) -> list[Idle]:
        return [Idle(start=number / 1000, result=number / 500) for number in range(1, count + 1)]


def test_one_round_measures_every_figure() -> None:
    measured: Measured = {}
    for _, step in steps(Sizes(completed=2, submitted=3, mapped=5, idle=99)):
        measured |= step(_Scripted())

    assert set(measured) == {figure.name for figure in FIGURES}
    assert measured["completed"] == 2
    assert measured["idle: start, p50"] == pytest.approx(50)
    assert measured["idle: result, p95"] == pytest.approx(190)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    def measured(value: float) -> Measured:
        return {figure.name: value for figure in FIGURES}

    row = rows([measured(2), measured(9), measured(40)], [measured(1), measured(3), measured(10)])[0]

    assert (row.ours, row.bare) == (9, 3)
    assert (row.least, row.ratio, row.most) == (2, 3, 4)


@pytest.mark.parametrize(
    ("more_is_better", "ratio", "passes"),
    [(True, 1.5, True), (True, 1.4, False), (False, 1.5, True), (False, 1.6, False)],
)
def test_a_bound_has_a_direction(more_is_better: bool, ratio: float, passes: bool) -> None:
    figure = Figure(name="x", unit="s", bound=1.5, more_is_better=more_is_better)

    assert figure.passes(ratio) is passes
