"""The interface between the program and the parts of the benchmark: each part is a small module with a ``PART``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from benchmarks.figures import Figure, Measured

#: Measures the round of the given number.
Measure = Callable[[int], Measured]


@dataclass
class Benchmark:
    """One execution of the program. ``samples`` are single values for the plots, by name; ``say`` shows the
    progress."""

    quick: bool = False
    say: Callable[[str], None] = print
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def count(self, full: int) -> int:
        """Return the full number of repetitions, or a tenth of it in a quick run."""
        return max(full // 10, 5) if self.quick else full

    def keep(self, name: str, values: Sequence[float]) -> None:
        """Add single values for a plot."""
        self.samples.setdefault(name, []).extend(round(value, 6) for value in values)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Figures that are measured together.

    ``opened`` starts the servers and workers of the part, and yields the function that measures a round. Both sides of
    a figure are measured in every round and take turns at going first. ``most_rounds`` limits the rounds of a slow
    part. ``lacks`` returns a missing requirement, for which the part is left out; empty if nothing is missing.
    """

    name: str
    figures: tuple[Figure, ...]
    opened: Callable[[Benchmark], AbstractContextManager[Measure]]
    most_rounds: int | None = None
    lacks: Callable[[], str] = lambda: ""


def turns(number: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Measure each side once. Every other round reverses the order, so that no side always gets the warmer machine."""
    names = list(sides)[:: 1 if number % 2 == 0 else -1]
    values = {name: sides[name]() for name in names}
    return {name: values[name] for name in sides}
