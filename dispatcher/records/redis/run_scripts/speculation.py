"""Claims by a guess: a run that looks like those read before is claimed without being read, as one of its kind.

A guess is safe, however wrong: the script compares kind and version, and puts in the times. What a claim means is still
said by the table of transitions, of a sample (``prepared.py``).
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import Program
from dispatcher.records.redis.run_scripts.prepared import Prepared, moment, plain, word
from dispatcher.records.runs import ClaimTransition
from dispatcher.records.snapshot import Snapshot
from dispatcher.runs.record import Record
from dispatcher.runs.states import State

_MOST = 1000


# What stands in a sample for a run's own words.
_ID, _HOLDER, _NONCE = (word() for _ in range(3))
_ACCEPTED, _NOW = moment(), moment()

#: What stands in prepared steps for the time of acceptance, and for now.
PLACES = repr(_ACCEPTED), repr(_NOW)


class Claim(NamedTuple):
    """A claim of a kind of runs by one owner: the steps, with places, and the record after it."""

    steps: Prepared
    after: Record


class Likes:
    """Kinds by what doorbells tell of their runs."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._known: dict[str, tuple[str, Record]] = {}
        self._read = "", "", ""
        self._claims: dict[tuple[str, str], Claim] = {}

    def guess(self, run_id: str, like: str) -> Snapshot | None:
        """Return how a run probably looks, if one like it is known, and its id is none that could be taken for
        steps."""
        if (known := self._known.get(like)) is None or not plain(run_id):
            return None
        kind, record = known
        return Snapshot(record.but(id=run_id), _NOW, kind)

    def read(self, run_id: str, like: str, kind: str) -> None:
        """Note what a run that was just read is like, and its kind."""
        self._read = run_id, like, kind

    def learn(self, record: Record) -> None:
        """Note how a run looked that was read last, and then taken: no doorbell alone can teach anything.

        One that must have started within some time is never guessed: its time isn't known.
        """
        run_id, like, kind = self._read
        fresh = record.version == 1 and record.state is State.QUEUED and record.start_by is None
        if fresh and kind and run_id == record.id:
            if len(self._known) >= _MOST:
                self._known.clear()
                self._claims.clear()
            self._known[like] = kind, record.but(created_at=_ACCEPTED, queued_at=_ACCEPTED, rung_at=_ACCEPTED)

    def forget(self, kind: str) -> None:
        """A guess from it was wrong."""
        self._known = {like: known for like, known in self._known.items() if known[0] != kind}

    def claim(self, look: Snapshot, begin: ClaimTransition, *, owner: str, holder: str) -> tuple[bytes, Record]:
        """The steps that claim a run as guessed, and the record as it will be."""
        claim = self._claims.get((look.kind, owner))
        if claim is None:
            claim = self._claims[look.kind, owner] = self._prepared(look.record, begin, owner)
        run_id, nonce = look.record.id, secrets.token_hex(8)
        steps = claim.steps.of({"id": run_id, "holder": holder, "nonce": nonce})
        return steps, claim.after.but(id=run_id, holder=holder, change=nonce)

    def _prepared(self, sample: Record, begin: ClaimTransition, owner: str) -> Claim:
        change = begin(sample.but(id=_ID), _NOW, owner=owner, holder=_HOLDER)
        assert change is not None  # it waits
        program = Program(self._keys)
        marked = change.marked(_NONCE)
        after = program.commit(marked, None)
        return Claim(Prepared(program.listed().decode(), {"id": _ID, "holder": _HOLDER, "nonce": _NONCE}), after)
