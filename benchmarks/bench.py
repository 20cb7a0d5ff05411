"""What every part of the benchmark gets, and what a part is: a small module with a ``PART``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from benchmarks.figures import Figure, Measured

#: Measures one round, given its number.
Measure = Callable[[int], Measured]


@dataclass
class Bench:
    """One call of the program. ``samples`` are single values for the plots, by name."""

    quick: bool = False
    say: Callable[[str], None] = print
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def count(self, full: int) -> int:
        """How many of something: all, or a tenth where it is only tried."""
        return max(full // 10, 5) if self.quick else full

    def keep(self, name: str, values: Sequence[float]) -> None:
        """Keep single values."""
        self.samples.setdefault(name, []).extend(round(value, 6) for value in values)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Figures that are measured together.

    ``opened`` starts what they need once and gives what measures a round; both sides of a figure are measured in
    every round, taking turns at going first. ``most_rounds`` bounds the rounds of a part that takes long. ``lacks``
    says what isn't there that it needs, empty if all is; it is left out then.
    """

    name: str
    figures: tuple[Figure, ...]
    opened: Callable[[Bench], AbstractContextManager[Measure]]
    most_rounds: int | None = None
    lacks: Callable[[], str] = lambda: ""


def turns(number: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Measure each side once; every other round in the opposite order, so that none always finds a warmer machine."""
    names = list(sides)[:: 1 if number % 2 == 0 else -1]
    found = {name: sides[name]() for name in names}
    return {name: found[name] for name in sides}
