"""Indexes of runs in Redis, sorted sets. For ``records/redis`` alone.

:mod:`dispatcher.runs.indexes` says which indexes there are and which runs they hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from dispatcher.errors import ServerUnavailable
from dispatcher.records.effects import UNREADABLE
from dispatcher.records.malformed import MalformedEntries
from dispatcher.records.query import Query
from dispatcher.records.redis.bounds import MOST_DISPLACED
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.runs import indexes
from dispatcher.runs.states import TERMINAL, State
from dispatcher.support.ids import is_run_id
from dispatcher.support.parsing import LONGEST_NAME, run_id_of

#: Ids that a search reads at a time.
_PAGE = 100


class RedisIndexes:
    """Reads and corrects indexes."""

    def __init__(self, client: Client, keys: Keys, malformed: MalformedEntries) -> None:
        self._client = client
        self._keys = keys
        self._malformed = malformed

    def members(
        self, index: str, *, until: float | None, limit: int, skip: int, highest_first: bool = False
    ) -> list[tuple[str, float]]:
        """As :meth:`Runs.members`. Members that are no run ids are removed."""
        highest = "+inf" if until is None else repr(until)
        key = self._keys.index(index)
        command, bounds = (
            ("ZREVRANGEBYSCORE", (highest, "-inf")) if highest_first else ("ZRANGEBYSCORE", ("-inf", highest))
        )
        flat = self._client.one(command, key, *bounds, "WITHSCORES", "LIMIT", skip, limit)
        members: list[tuple[str, float]] = []
        foreign: list[bytes] = []
        for raw, score in zip(flat[0::2], flat[1::2], strict=True):
            run_id = self._malformed.read(f"member {raw[:LONGEST_NAME]!r} of {index}", partial(run_id_of, raw))
            if run_id is None:
                foreign.append(raw)
            else:
                members.append((run_id, float(score)))
        if foreign:
            with suppress(ServerUnavailable):  # a user who may only read leaves that to others
                self._client.one("ZREM", key, *foreign)
        return members

    def leave(self, index: str, runs: Collection[str] | Mapping[str, int], *, unreadable: bool) -> int:
        """As :meth:`Runs.leave`."""
        if not runs:
            return 0
        if isinstance(runs, Mapping):
            return self._leave_unchanged(index, runs)
        keys = [key for run_id in runs for key in self._keys.of_run(run_id)] if unreadable else []
        expirations = [("EXPIRE", key, int(UNREADABLE)) for key in keys]
        return int(self._client.many([("ZREM", self._keys.index(index), *runs), *expirations])[0])

    def _leave_unchanged(self, index: str, versions: Mapping[str, int]) -> int:
        commands, runs = [], list(versions.items())
        for first in range(0, len(runs), MOST_DISPLACED):
            portion = runs[first : first + MOST_DISPLACED]
            keys = [self._keys.index(index), *(self._keys.run(run_id) for run_id, _ in portion)]
            commands.append(script("displace").command(keys, *(word for run in portion for word in run)))
        return sum(map(int, self._client.accepted(self._client.run_many(commands))))

    def count(self, index: str) -> int:
        """As :meth:`Runs.count`."""
        return int(self._client.one("ZCARD", self._keys.index(index)))

    def pages(self, query: Query) -> Iterator[list[str]]:
        """Yield the run ids of the narrowest index for a query, newest first.

        Pages go by score, so that new runs don't shift them.
        """
        key = self._keys.index(self._narrowest(query))
        lowest = "-inf" if query.since is None else repr(query.since)
        highest, skip = "+inf", 0
        while True:
            flat = self._client.one("ZREVRANGEBYSCORE", key, highest, lowest, "WITHSCORES", "LIMIT", skip, _PAGE)
            scores = flat[1::2]
            if scores:
                yield [run_id for raw in flat[0::2] if is_run_id(run_id := raw.decode(errors="replace"))]
            if len(scores) < _PAGE:
                return
            last = scores[-1]
            skip = scores.count(last) + (skip if last == scores[0] and last.decode() == highest else 0)
            highest = last.decode()

    def remove_everywhere(self, run_ids: Sequence[str]) -> None:
        """Remove runs from every index: without their records, nobody knows which ones hold them."""
        cursor = b"0"
        while True:
            cursor, names = self._client.one("SCAN", cursor, "MATCH", f"{self._keys.index_prefix}*", "COUNT", 1000)
            self._client.many([("ZREM", name, *run_ids) for name in names])
            if cursor == b"0":
                return

    def _narrowest(self, query: Query) -> str:
        """Return the index with the fewest runs, of those that hold every run the query asks for."""
        names = [indexes.ALL]
        if query.state is not None and query.state in TERMINAL:
            names.append(indexes.by_state(query.state))
        elif query.state is not None and query.state is not State.UNKNOWN:
            names.append(indexes.OPEN)
        if query.label is not None:
            names.append(indexes.by_label(query.label))
        if query.flow is not None:
            names.append(indexes.by_flow(query.flow))
        if query.tag is not None:
            names.append(indexes.by_tag(query.tag))
        sizes = self._client.many([("ZCARD", self._keys.index(name)) for name in names])
        return min(zip(sizes, names, strict=True))[1]
