"""Figures: their base of comparison, their bound, and the verdict over all rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class Comparison(StrEnum):
    """The value to which the bound applies."""

    RATIO = "ratio"  #: ours / base
    DIFFERENCE = "difference"  #: ours - base, in the figure's unit
    OURS = "ours"  #: ours, in the figure's unit; a base is only shown


@dataclass(frozen=True)
class Pair:
    """The values of one round; ``base`` is the value that ours is compared with, measured in the same round."""

    ours: float
    base: float | None = None


#: The values of one round by the name of their figure.
Measured = Mapping[str, Pair]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure. If ``bound`` is None, it is only printed."""

    name: str
    unit: str
    bound: float | None = None
    more_is_better: bool = False
    by: Comparison = Comparison.RATIO
    base: str = "bare Celery"
    digits: int = 1

    def value(self, pair: Pair) -> float:
        """Return the value to which the bound applies."""
        if self.by is Comparison.OURS or pair.base is None:
            return pair.ours
        return pair.ours - pair.base if self.by is Comparison.DIFFERENCE else pair.ours / pair.base

    def passes(self, value: float) -> bool:
        """Return True if a value is within the bound."""
        if self.bound is None:
            return True
        return value >= self.bound if self.more_is_better else value <= self.bound

    @property
    def target(self) -> str:
        """The bound, for people."""
        if self.bound is None:
            return ""
        sign = "≥" if self.more_is_better else "≤"
        return f"{sign} {self.bound:g}{' times' if self.by is Comparison.RATIO else f' {self.unit}'}"


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A figure over all rounds: the medians of both sides, and median, minimum and maximum of the bounded value."""

    figure: Figure
    ours: float
    base: float | None
    value: float
    least: float
    most: float

    @property
    def passes(self) -> bool:
        """Return True if the median is within the bound."""
        return self.figure.passes(self.value)


def row(figure: Figure, rounds: Sequence[Measured]) -> ResultRow:
    """Return the row of a figure, from all rounds that measured it."""
    pairs = [measured[figure.name] for measured in rounds if figure.name in measured]
    values = [figure.value(pair) for pair in pairs]
    bases = [pair.base for pair in pairs if pair.base is not None]
    return ResultRow(
        figure=figure,
        ours=median(pair.ours for pair in pairs),
        base=median(bases) if bases else None,
        value=median(values),
        least=min(values),
        most=max(values),
    )
