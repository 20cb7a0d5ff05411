"""Decision on the workers of a run's own cluster to create and to delete. Pure; for :mod:`workers.supervisor.scaling`.

The runner says which workers it wants; the supervisor holds it to the most that the request allows, and never lets two
workers of one name live.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backends.base import Phase
from dispatcher.runs.cluster import worker_number
from workers.supervisor.judgement import OVER


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """The workers of one attempt, as far as they are known.

    Args:
        wanted: names of the workers that shall exist, in order of their creation; None: nobody has said.
        connected: those that are connected to the scheduler.
        most: how many may live at a time.
        phases: of the workers that exist, by name; those that are gone are left out.
        creating: those whose creation was requested, and that will soon be seen.
        doubtful: those whose creation has failed, and that may exist all the same.
        spent: those that had joined and left; their names are never used again.
        spared: those that mustn't be deleted yet: the reason of their end, or their last lines, are still read.
        growing: whether any may be created.
    """

    wanted: Sequence[str] | None
    connected: frozenset[str] = frozenset()
    most: int
    phases: Mapping[str, Phase]
    creating: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()
    spent: frozenset[str] = frozenset()
    spared: frozenset[str] = frozenset()
    growing: bool = True

    @property
    def allowed(self) -> tuple[str, ...]:
        """The workers wanted, at most as many as may live; those that are connected come first."""
        wanted = tuple(self.wanted or ())
        if len(wanted) <= self.most:
            return wanted
        return tuple(sorted(wanted, key=lambda name: name not in self.connected)[: self.most])


@dataclass(frozen=True, kw_only=True)
class ScaleDecision:
    """Names of the workers to create and to delete, in order."""

    create: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


def decide(view: ClusterView) -> ScaleDecision:
    """Decide by all that is known. Where nobody has said what is wanted, only what has ended is deleted."""
    allowed = frozenset(view.allowed)
    over = {name for name, phase in view.phases.items() if phase in OVER}
    living = view.phases.keys() - over
    unwanted = set() if view.wanted is None else living - allowed - view.connected
    delete = (over | unwanted) - view.spared
    if not view.growing:
        return ScaleDecision(delete=_ordered(delete))
    # What has vanished with its node is deleted when that comes back, and ends by itself.
    stranded = {name for name in unwanted if view.phases[name] is Phase.UNKNOWN}
    taken = (living - stranded) | view.creating | view.doubtful
    create = []
    for name in view.allowed:
        fits = name in view.doubtful or len(taken) < view.most
        if fits and name not in view.phases and name not in view.creating and name not in view.spent:
            taken.add(name)
            create.append(name)
    return ScaleDecision(create=tuple(create), delete=_ordered(delete))


def _ordered(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=worker_number))
