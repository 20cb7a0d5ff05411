"""Figures that a test of the chaos tier measured: printed as a distribution, and kept for ``make chaos``.

``CHAOS_FIGURES`` names the file to which each is appended, one a line. At its end pytest says them all again
(``tests/conftest.py``), also of tests that passed and that ran in another process of xdist's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.distribution import percentile, shown

VARIABLE = "CHAOS_FIGURES"

#: Name of a test's property that is said at the end.
SAID = "said"


@dataclass(frozen=True)
class Figure:
    """A measured quantity, in seconds, and its bound for a percentage of the samples."""

    name: str
    bound: float
    share: float = 100

    @property
    def bound_text(self) -> str:
        """The bound in words."""
        return f"{'all' if self.share == 100 else f'p{self.share:g}'} ≤ {self.bound:g} s"

    def held(self, samples: Sequence[float]) -> bool:
        """Return True if samples keep the bound."""
        return bool(samples) and percentile(samples, self.share) <= self.bound


class Figures:
    """Print figures, and record them.

    Args:
        record: pytest's ``record_property`` of the test.
    """

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def say(self, text: str) -> None:
        """Print something, now and at the end."""
        print(text, flush=True)  # noqa: T201 - a figure is to be seen
        self._record(SAID, text)

    def note(self, figure: Figure, samples: Sequence[float]) -> None:
        """Print a figure, and record it."""
        self.say(f"{figure.name}: {shown(samples)}, bound {figure.bound:g} s")
        self.keep("figure", **asdict(figure), samples=[round(sample, 3) for sample in samples])

    def keep(self, section: str, **data: Any) -> None:
        """Append a line, if anybody asked for it."""
        append(section, **data)


def append(section: str, **data: Any) -> None:
    """Append a line to the file, if anybody asked for it."""
    if file := os.environ.get(VARIABLE):
        with Path(file).open("a") as out:
            out.write(json.dumps({"what": section, **data}) + "\n")
