"""Changes prepared once for each kind of runs: the table of transitions says them of a sample, and each run's own words
take their places.

Runs of a kind go the same way, and to say it anew for each takes a process longer than to run a small flow. How they
are accepted: ``acceptance.py``; claimed: ``likes.py``; and how one ends well that was claimed so: here.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from dispatcher.records.events import ends_topic
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.run_scripts.change import MOST_TOLD, Program
from dispatcher.runs import transitions
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.value import Value

_MOST = 1000

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Ids, hosts, nonces, numbers: nothing that ends a string, or escapes.
_PLAIN = re.compile(r"[0-9A-Za-z_.:@/+-]*")


def moment() -> float:
    """A time that nothing else in a change reads the same as."""
    return 1e9 + secrets.randbelow(10**9) + secrets.randbelow(10**6) / 1e6


def plain(word: str) -> bool:
    """Return True if a word reads the same inside of JSON, and inside of JSON that stands as text in other JSON."""
    return _PLAIN.fullmatch(word) is not None


def word() -> str:
    """A word that no flow's name can hold."""
    return uuid.uuid4().hex


class Prepared:
    """Steps with places.

    Args:
        steps: of a sample.
        places: what is a run's own, by name, as it stands in the sample.
    """

    def __init__(self, steps: str, places: Mapping[str, str]) -> None:
        names = {stands: name for name, stands in places.items()}
        pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        self._parts = re.split(f"({pattern})", steps)
        self._places = [(n, names[self._parts[n]]) for n in range(1, len(self._parts), 2)]

    def of(self, own: Mapping[str, str]) -> bytes:
        """The steps of one run.

        Args:
            own: by name, what stands in the places: :func:`plain` words, or text that is escaped as its place wants it.
        """
        parts = self._parts.copy()
        for n, name in self._places:
            parts[n] = own[name]
        return "".join(parts).encode()


class _End(NamedTuple):
    """The end of runs of a kind that end well: the steps, and what the record changes in, beside a run's own words."""

    steps: Prepared
    changes: Mapping[str, Any]


_WELL = Outcome().__dict__

# What stands in a sample for a run's own words.
_ID, _HOLDER, _NONCE, _RESULT = (word() for _ in range(4))
_ACCEPTED, _STARTED, _ENDED = (moment() for _ in range(3))


class Endings:
    """Ends of runs that were claimed as their kind, by kind and by what else an end depends on."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._known: dict[Any, _End | None] = {}

    def of(self, record: Record, now: float, outcome: Outcome | None, exit_call: ExitCall | None) -> Any:
        """The steps that end a run as :func:`transitions.finish` says, and the record as it will be; None if that is
        to be said by the table itself.

        Args:
            record: the run, as it stood when it was claimed as its kind.
            now: the server's clock.
            outcome: how the attempt ended.
            exit_call: how its ``on_exit`` did.
        """
        result = _small(record, outcome, exit_call)
        if result is None or not plain(record.id) or not plain(record.holder):
            return None
        spec = record.spec
        kind = spec.kind, spec.blobs, spec.result_ttl, record.owner, spec.retry.count > 0, record.verified
        if kind not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[kind] = self._prepared(record)
        end = self._known[kind]
        if end is None:
            return None
        once = _json(result)[1:-1]
        nonce = secrets.token_hex(8)
        own = {
            "id": record.id,
            "topic": ends_topic(record.id),
            "holder": record.holder,
            "nonce": nonce,
            "accepted": repr(record.created_at),
            "started": repr(record.started_at),
            "ended": repr(now),
            "expires": repr(now + spec.result_ttl),
            "result": once,
            "told": _json(once)[1:-1],
        }
        return end.steps.of(own), record.but(outcome=outcome, ended_at=now, change=nonce, **end.changes)

    def _prepared(self, like: Record) -> _End | None:
        before = like.but(
            id=_ID, holder=_HOLDER, created_at=_ACCEPTED, queued_at=_ACCEPTED, rung_at=_ACCEPTED, started_at=_STARTED
        )
        if like.verified:
            before.mark_verified()
        outcome = Outcome(result=(result := Value(codec="json", inline=_RESULT)))
        change = transitions.finish(before, _ENDED, epoch=before.epoch, outcome=outcome, exit_call=ExitCall.NONE)
        assert change is not None  # it runs
        marked = change.marked(_NONCE)
        program = Program(self._keys)
        after = program.commit(marked, None)
        steps, once = program.listed().decode(), _json(_text(result))[1:-1]
        places = {
            "id": _ID,
            "topic": ends_topic(_ID),
            "holder": _HOLDER,
            "nonce": _NONCE,
            "accepted": repr(_ACCEPTED),
            "started": repr(_STARTED),
            "ended": repr(_ENDED),
            "expires": repr(_ENDED + like.spec.result_ttl),
            "result": once,
            "told": _json(once)[1:-1],
        }
        if change.ring is not None or places["told"] not in steps:  # it goes on, or is too much to tell in the notice
            return None
        own = {"outcome", "ended_at", "change"}
        old = before.__dict__
        changes = {name: new for name, new in after.__dict__.items() if name not in own and new != old.get(name)}
        return _End(Prepared(steps, places), changes)


def _small(record: Record, outcome: Outcome | None, exit_call: ExitCall | None) -> str | None:
    """The outcome as text, if it is a small result and no more; None if not."""
    if record.key or record.exit_call is not ExitCall.NONE or exit_call not in {None, ExitCall.NONE}:
        return None
    if outcome is None or outcome.result is None or {**outcome.__dict__, "result": None} != _WELL:
        return None
    text = _text(outcome.result)
    return text if len(text) <= MOST_TOLD // 4 else None


def _text(result: Value) -> str:
    """An outcome that is a result and no more, as a record's field."""
    return json.dumps({"result": result.to_json()})
