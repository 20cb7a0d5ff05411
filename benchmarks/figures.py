"""What a figure is: what it is compared with, its bound, and how rounds become one verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class By(StrEnum):
    """What the bound is for."""

    RATIO = "ratio"  #: ours / base
    DIFFERENCE = "difference"  #: ours - base, in the figure's unit
    OURS = "ours"  #: ours, in the figure's unit; a base is shown only


@dataclass(frozen=True)
class Pair:
    """One round's values; ``base`` is what ours is compared with, measured in the same round."""

    ours: float
    base: float | None = None


#: Of one round: name of a figure → its values.
Measured = Mapping[str, Pair]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row. ``bound`` None: it is only printed."""

    name: str
    unit: str
    bound: float | None = None
    more_is_better: bool = False
    by: By = By.RATIO
    base: str = "bare Celery"
    digits: int = 1

    def value(self, pair: Pair) -> float:
        """What is held against the bound."""
        if self.by is By.OURS or pair.base is None:
            return pair.ours
        return pair.ours - pair.base if self.by is By.DIFFERENCE else pair.ours / pair.base

    def passes(self, value: float) -> bool:
        """Return True if it is within the bound."""
        if self.bound is None:
            return True
        return value >= self.bound if self.more_is_better else value <= self.bound

    @property
    def target(self) -> str:
        """The bound, for people."""
        if self.bound is None:
            return ""
        sign = "≥" if self.more_is_better else "≤"
        return f"{sign} {self.bound:g}{' times' if self.by is By.RATIO else f' {self.unit}'}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure over all rounds: medians of both sides, and median, least and greatest of what the bound is for."""

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


def row(figure: Figure, rounds: Sequence[Measured]) -> Row:
    """One row, from all rounds that measured the figure."""
    pairs = [one[figure.name] for one in rounds if figure.name in one]
    values = [figure.value(pair) for pair in pairs]
    bases = [pair.base for pair in pairs if pair.base is not None]
    return Row(
        figure=figure,
        ours=median(pair.ours for pair in pairs),
        base=median(bases) if bases else None,
        value=median(values),
        least=min(values),
        most=max(values),
    )
