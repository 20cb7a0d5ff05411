"""Makes specs and records for tests."""

from __future__ import annotations

from typing import Any

from dispatcher.runs import transitions
from dispatcher.runs.options import Options
from dispatcher.runs.record import Record, Spec, Value
from dispatcher.runs.routing import Route


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
    }
    return Spec(run_id=run_id, options=Options.of(**options), **{**defaults, **changes})


def make_record(run_id: str = "run1", *, key: str = "", spec_digest: str = "d", **changes: Any) -> Record:
    """A record as a client hands it to ``create``."""
    spec = make_spec(run_id, **changes)
    return Record(id=run_id, spec_bytes=spec.to_bytes(), signature="s", spec_digest=spec_digest, key=key)


def queued(now: float = 0.0, **changes: Any) -> Record:
    """A record as it stands after its creation."""
    return transitions.create(make_record(**changes), now).after
