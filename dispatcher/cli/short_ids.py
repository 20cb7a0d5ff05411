"""Short ids of runs: their last characters, as many as tell them apart. Pure; used by commands only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

#: Characters of an id that are shown at least.
LENGTH = 8

#: Runs among which a short id is unique: so many of the newest.
AMONG = 1000


def shortened(ids: Iterable[str], among: Sequence[str]) -> Mapping[str, str]:
    """Return each id with the shortest ending of it, of at least :data:`LENGTH` characters, that no other one has.

    Args:
        ids: the ids.
        among: others.
    """
    ids = list(dict.fromkeys(ids))
    everything = sorted({run_id[::-1] for run_id in (*ids, *among)})
    place = {run_id: index for index, run_id in enumerate(everything)}
    shown = {}
    for run_id in ids:
        index = place[run_id[::-1]]
        neighbours = everything[max(0, index - 1) : index] + everything[index + 1 : index + 2]
        common = max((_common(run_id[::-1], other) for other in neighbours), default=0)
        shown[run_id] = run_id[-max(LENGTH, common + 1) :]
    return shown


def _common(text: str, other: str) -> int:
    """Return the number of characters with which two texts begin alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))
