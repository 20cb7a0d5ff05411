"""Figures that a test of the chaos tier measured: printed as a distribution, and kept for ``make chaos``.

``CHAOS_FIGURES`` names the file to which each is appended, one a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.distribution import percentile, shown

VARIABLE = "CHAOS_FIGURES"


@dataclass(frozen=True)
class Figure:
    """What is measured, in seconds, and its bound: of so many of a hundred samples."""

    name: str
    bound: float
    share: float = 100

    @property
    def said(self) -> str:
        """The bound in words."""
        return f"{'all' if self.share == 100 else f'p{self.share:g}'} ≤ {self.bound:g} s"

    def held(self, samples: Sequence[float]) -> bool:
        """Whether samples keep the bound."""
        return bool(samples) and percentile(samples, self.share) <= self.bound


class Figures:
    """Where figures are told."""

    def note(self, figure: Figure, samples: Sequence[float]) -> None:
        """Print one, and keep it."""
        print(f"{figure.name}: {shown(samples)}, bound {figure.bound:g} s")  # noqa: T201 - a figure is to be seen
        self.keep("figure", **asdict(figure), samples=[round(sample, 3) for sample in samples])

    def keep(self, what: str, **data: Any) -> None:
        """Append a line, if anybody asked for it."""
        if file := os.environ.get(VARIABLE):
            with Path(file).open("a") as out:
                out.write(json.dumps({"what": what, **data}) + "\n")
