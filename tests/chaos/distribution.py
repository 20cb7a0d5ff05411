"""Samples as people read them: least, median, 95th and 99th percentile, greatest."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(samples: Sequence[float], share: float) -> float:
    """The least sample that at least so many of a hundred don't exceed."""
    ordered = sorted(samples)
    place = max(-(-len(ordered) * share // 100), 1)
    return ordered[int(place) - 1]


def shown(samples: Sequence[float], unit: str = "s") -> str:
    """One line; says how many there were."""
    if not samples:
        return "no samples"
    parts = {"min": min(samples), **{f"p{share}": percentile(samples, share) for share in (50, 95, 99)}}
    figures = "  ".join(f"{name} {value:.2f}" for name, value in (parts | {"max": max(samples)}).items())
    return f"{figures} {unit}  (n={len(samples)})"
