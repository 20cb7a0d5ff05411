"""Workload of a soak: the ways a run may go, its backend, and the states in which it may end."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State

#: Repeats whatever faults may do to an attempt, and what the flow does.
AGAIN = Retry(100, delay=0.1, backoff=1, on=set(Cause) - {Cause.CANCELLED, Cause.DEADLINE, Cause.CONFIG_ERROR})


@dataclass(frozen=True)
class Way:
    """A way that a run may go: how ``tests.chaos.flows.marked`` is called, and how it may end."""

    name: str
    weight: int
    ends: frozenset[State]
    goes: str = "plain"
    least: float = 0.0  #: seconds that the flow takes
    most: float = 0.0
    retries: Retry = AGAIN
    timeout: float | None = None
    cancelled: bool = False


_WELL = frozenset({State.SUCCEEDED})

WAYS: Mapping[str, Way] = {
    way.name: way
    for way in (
        Way("plain", 38, _WELL),
        Way("slow", 30, _WELL, least=0.3, most=3.0),
        Way("raises", 9, _WELL, goes="raises"),
        Way("dies", 6, _WELL, goes="dies"),
        Way("fails", 6, frozenset({State.FAILED, State.CRASHED}), goes="raises", retries=Retry(0)),
        Way("cancelled", 7, _WELL | {State.CANCELLED}, goes="waits", cancelled=True),
        Way("late", 4, _WELL | {State.TIMED_OUT}, goes="waits", timeout=1.0),
    )
}

#: Backends by how many of a hundred runs they get; containers cost two processes each.
BACKENDS = {"local": 74, "remote": 20, "fake": 6}


@dataclass(frozen=True)
class RunRequest:
    """A run to submit."""

    key: str
    way: Way
    backend: str
    seconds: float

    def parameters(self, folder: str) -> dict[str, Any]:
        """The flow's."""
        return {"folder": folder, "way": self.way.goes, "seconds": self.seconds}


def draw(rng: random.Random, key: str) -> RunRequest:
    """Draw a run by the weights."""
    [way] = rng.choices(list(WAYS.values()), [way.weight for way in WAYS.values()])
    [backend] = rng.choices(list(BACKENDS), list(BACKENDS.values()))
    return RunRequest(key, way, backend, round(rng.uniform(way.least, way.most), 3))
