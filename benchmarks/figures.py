"""The figures: what is compared, by how much ours may be worse or must be better, and how rounds become one ratio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.side import Idle, Side

#: Of each side and round: name of a figure → its value.
Measured = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row. ``bound`` is for the ratio ours / bare Celery: at least so much where more is better, else at most."""

    name: str
    unit: str
    bound: float
    more_is_better: bool

    def passes(self, ratio: float) -> bool:
        """Whether a ratio is within the bound."""
        return ratio >= self.bound if self.more_is_better else ratio <= self.bound


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure over all rounds: medians of both sides, and the median, least and greatest ratio of one round."""

    figure: Figure
    ours: float
    bare: float
    ratio: float
    least: float
    most: float

    @property
    def passes(self) -> bool:
        """Whether the median ratio is within the bound."""
        return self.figure.passes(self.ratio)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many of each."""

    completed: int = 2000
    submitted: int = 2000
    mapped: int = 5000
    idle: int = 100


FIGURES = (
    Figure(name="completed", unit="runs/s", bound=1.0, more_is_better=True),
    Figure(name="submit", unit="runs/s", bound=1.5, more_is_better=True),
    Figure(name="map", unit="runs/s", bound=5.0, more_is_better=True),
    Figure(name="idle: start, p50", unit="ms", bound=1.3, more_is_better=False),
    Figure(name="idle: start, p95", unit="ms", bound=1.3, more_is_better=False),
    Figure(name="idle: result, p50", unit="ms", bound=1.0, more_is_better=False),
    Figure(name="idle: result, p95", unit="ms", bound=1.0, more_is_better=False),
)


def steps(sizes: Sizes) -> Iterator[tuple[str, Callable[[Side], Measured]]]:
    """What one round measures of a side, each with its name."""
    yield "completed", lambda side: {"completed": side.completed(sizes.completed)}
    yield "submit", lambda side: {"submit": side.submitted(sizes.submitted)}
    yield "map", lambda side: {"map": side.mapped(sizes.mapped)}
    yield "idle", lambda side: _latencies(side.idle(sizes.idle))


def rows(ours: Sequence[Measured], bare: Sequence[Measured]) -> list[Row]:
    """One row per figure, from the rounds of both sides in the same order."""
    found = []
    for figure in FIGURES:
        mine, theirs = [one[figure.name] for one in ours], [one[figure.name] for one in bare]
        ratios = [left / right for left, right in zip(mine, theirs, strict=True)]
        found.append(
            Row(
                figure=figure,
                ours=median(mine),
                bare=median(theirs),
                ratio=median(ratios),
                least=min(ratios),
                most=max(ratios),
            )
        )
    return found


def _latencies(found: Sequence[Idle]) -> Measured:
    starts, results = [one.start * 1000 for one in found], [one.result * 1000 for one in found]
    return {
        "idle: start, p50": median(starts),
        "idle: start, p95": quantiles(starts, n=20)[-1],
        "idle: result, p50": median(results),
        "idle: result, p95": quantiles(results, n=20)[-1],
    }
