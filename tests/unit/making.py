"""Makes specs and records for tests."""

from __future__ import annotations

from typing import Any

from dispatcher.records.base import Records
from dispatcher.runs import transitions
from dispatcher.runs.options import Options
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.value import Value
from dispatcher.serialization import KeyRing

#: A time that no test comes to: the clocks of some begin at 0, those of others today.
NEVER = 1e10


def make_spec(run_id: str = "run1", **changes: Any) -> Spec:
    """A spec of a no-op flow; ``options`` may be given as keywords of Options.of."""
    options = {
        name: changes.pop(name)
        for name in ("timeout", "start_within", "result_ttl", "retries", "tags")
        if name in changes
    }
    defaults: dict[str, Any] = {
        "flow": "noop",
        "storage": {"type": "RedisStorage"},
        "location": "digest",
        "parameters": Value(codec="json", inline="{}"),
        "environment": {"type": "LocalEnvironment"},
        "route": Route("local"),
        "expires": NEVER,
    }
    return Spec(run_id=run_id, options=Options.of(**options), **{**defaults, **changes})


def make_record(run_id: str = "run1", *, key: str = "", spec_digest: str = "d", **changes: Any) -> Record:
    """A record as a client hands it to ``create``; verified, as if this process had checked its signature."""
    spec = make_spec(run_id, **changes)
    record = Record(id=run_id, spec_bytes=spec.to_bytes(), signature="s", spec_digest=spec_digest, key=key)
    record.mark_verified()
    return record


def trusting(records: Records) -> Records:
    """The records, as a process holds them for whom every signature holds."""
    records.runs.check = lambda record, now: None
    return records


def sign(record: Record, keys: KeyRing) -> Record:
    """The record, its spec signed."""
    return record.but(signature=keys.sign(record.id, record.spec_bytes))


def queued(now: float = 0.0, **changes: Any) -> Record:
    """A record as it stands after its creation."""
    return transitions.create(make_record(**changes), now).after
