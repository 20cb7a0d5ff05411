"""The shards of a backend that this worker supervises.

Runs hash into a fixed number of shards. A shard's lease names its holder and lasts as long as the holder's heartbeat.
If the holder is dead, or holds more than its share while another worker holds less, another worker takes the shard, and
its epoch grows. Shards that nobody takes because dead workers still count are taken by whoever sees them free twice.
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
        leases: the shards' leases.
        family: prefix of the shards' names; see :func:`~dispatcher.runs.attempt.family`.
        owner: the worker's id.
    """

    def __init__(self, leases: Leases, family: str, owner: str) -> None:
        self._leases = leases
        self._family = family
        self._owner = owner
        self._held: dict[str, Lease] = {}
        self._free: frozenset[str] = frozenset()  # left to others by the last share()
        self.holders: frozenset[str] = frozenset()  #: of all shards, as of the last :meth:`share`

    @property
    def held(self) -> Collection[str]:
        """Names of the shards held, as of the last :meth:`share`."""
        return tuple(self._held)

    def lease(self, name: str) -> Lease | None:
        """Return the lease of a shard that this worker holds; None for any other."""
        return self._held.get(name)

    def forget(self, name: str) -> None:
        """Forget a shard that has another holder: a write on its behalf was refused."""
        self._held.pop(name, None)

    def share(self, supervisors: Iterable[str], dead: Collection[str]) -> None:
        """Acquire shards that are free or held by dead workers, up to a fair share; release those beyond it.

        Workers that died within the length of a lease may still count, so that the shares don't add up to all shards.
        A shard that is free twice in a row is therefore acquired too, and released the next time.

        Args:
            supervisors: ids of the live workers that supervise this backend in this place.
            dead: ids of workers whose heartbeat has stopped for the length of a lease.
        """
        alive = {*supervisors, self._owner} - set(dead)
        fair = math.ceil(SHARDS / len(alive | {self._owner}))
        leases = self._leases.held(f"{self._family}/")
        self.holders = frozenset(lease.owner for lease in leases.values())
        self._held = {name: lease for name, lease in leases.items() if lease.owner == self._owner}
        for name in sorted(self._held)[fair:]:
            self._leases.release(self._held.pop(name))
            failpoint("shard.given")
        names = [f"{self._family}/{number}" for number in range(SHARDS)]
        free = [name for name in names if (lease := leases.get(name)) is None or lease.owner in dead]
        for name in free:
            if len(self._held) < fair or name in self._free:
                self._acquire(name, leases.get(name))
        self._free = frozenset(free) - self._held.keys()

    def _acquire(self, name: str, previous: Lease | None) -> None:
        lease = self._leases.acquire(name, self._owner, expected=previous)
        if lease is not None:
            failpoint("shard.taken")
            self._held[name] = lease

    def release_all(self) -> None:
        """Release all shards."""
        while self._held:
            self._leases.release(self._held.popitem()[1])
