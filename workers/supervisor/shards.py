"""The shards of a backend for which this worker answers.

Runs hash into a fixed number of shards. A shard's lease names its holder and stands with the holder's beat: when the
holder is dead, or has more than its share while another worker has less, another takes it and its epoch grows. What
nobody takes, since workers that just died still count, is taken by whoever sees it free twice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from dispatcher.records.leases import Lease, Leases
from dispatcher.runs.attempt import SHARDS
from dispatcher.support.failpoints import failpoint


class Shards:
    """The shards of one backend, in one place of it, that one worker holds.

    Args:
        leases: where they are kept.
        family: what the names of these shards begin with; see :func:`~dispatcher.runs.attempt.family`.
        owner: the worker's id.
    """

    def __init__(self, leases: Leases, family: str, owner: str) -> None:
        self._leases = leases
        self._family = family
        self._owner = owner
        self._mine: dict[str, Lease] = {}
        self._free: frozenset[str] = frozenset()  # left to others at the last look
        self.holders: frozenset[str] = frozenset()  #: of any shard, as of the last :meth:`share`

    @property
    def held(self) -> Collection[str]:
        """Names of the shards held, as of the last :meth:`share`."""
        return tuple(self._mine)

    def lease(self, name: str) -> Lease | None:
        """The lease of a shard that we hold; None of any other."""
        return self._mine.get(name)

    def lost(self, name: str) -> None:
        """Others have taken it: a write on its behalf was refused."""
        self._mine.pop(name, None)

    def share(self, supervisors: Iterable[str], dead: Collection[str]) -> None:
        """Take what is free or held by the dead, up to a fair share; give back what is more.

        Workers that died within a lease's length may still count, so that the shares don't add up to all: whatever
        is free at two looks in a row is taken too, and given back at the next one.

        Args:
            supervisors: ids of the workers alive that supervise this backend in this place.
            dead: ids of workers whose beat has stopped for the length of a lease.
        """
        alive = {*supervisors, self._owner} - set(dead)
        fair = math.ceil(SHARDS / len(alive | {self._owner}))
        held = self._leases.held(f"{self._family}/")
        self.holders = frozenset(lease.owner for lease in held.values())
        self._mine = {name: lease for name, lease in held.items() if lease.owner == self._owner}
        for name in sorted(self._mine)[fair:]:
            self._leases.release(self._mine.pop(name))
            failpoint("shard.given")
        names = [f"{self._family}/{number}" for number in range(SHARDS)]
        free = [name for name in names if (lease := held.get(name)) is None or lease.owner in dead]
        for name in free:
            if len(self._mine) < fair or name in self._free:
                self._take(name, held.get(name))
        self._free = frozenset(free) - self._mine.keys()

    def _take(self, name: str, seen: Lease | None) -> None:
        lease = self._leases.acquire(name, self._owner, expected=seen)
        if lease is not None:
            failpoint("shard.taken")
            self._mine[name] = lease

    def leave(self) -> None:
        """Give all back."""
        while self._mine:
            self._leases.release(self._mine.popitem()[1])
