"""An attempt as a backend sees it: always the same for one run and number, so that a request can be repeated. Pure."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dispatcher.runs.spec import Spec

#: Shards per backend and place: at most so many workers share the supervision of one.
SHARDS = 16


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """All that a backend needs to know of one attempt.

    ``name`` is deterministic (at most 52 characters, RFC 1123). ``environment`` and ``storage`` are the JSON of those
    values, ``variables`` are the runner's environment variables. The supervisor that holds ``shard`` is responsible for
    the attempt. ``timeout`` and ``start_within`` are in seconds; None: unlimited.
    """

    run_id: str
    number: int
    name: str
    instance: str
    shard: str
    environment: Mapping[str, Any]
    variables: Mapping[str, str]
    flow: str = ""
    storage: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    start_within: float | None = None

    @classmethod
    def of(
        cls, spec: Spec, number: int, *, instance: str, place: str = "", variables: Mapping[str, str] | None = None
    ) -> Attempt:
        """Return an attempt of a run.

        Args:
            spec: the run's.
            number: the attempt's number, from 1.
            instance: the installation's id.
            place: where its backend creates infrastructure, if it has several places (clusters).
            variables: further environment variables for the runner, no secrets.
        """
        shard = shard_of(family(spec.route.backend, place), spec.run_id)
        return cls(
            run_id=spec.run_id,
            number=number,
            name=object_name(spec.run_id, number),
            instance=instance,
            shard=shard,
            environment=spec.environment,
            variables={
                "DISPATCHER__RUN__ID": spec.run_id,
                "DISPATCHER__RUN__ATTEMPT": str(number),
                "DISPATCHER__RUN__SHARD": shard,
                **(variables or {}),
            },
            flow=spec.flow,
            storage=spec.storage,
            timeout=spec.options.timeout,
            start_within=spec.options.start_within,
        )


def family(backend: str, place: str = "") -> str:
    """Return the common prefix of the names of all shards of one backend in one place."""
    return f"{backend}@{place}" if place else backend


def shard_of(family: str, run_id: str) -> str:
    """Return the shard responsible for a run, for all its life."""
    return f"{family}/{zlib.crc32(run_id.encode()) % SHARDS}"


def object_name(run_id: str, attempt: int) -> str:
    """Return the name of an attempt's infrastructure: deterministic, at most 52 characters, RFC 1123."""
    short = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    stem = "".join(letter for letter in run_id.lower() if letter.isalnum())[:26]
    return f"flow-{stem}-{short}-{attempt}"


def is_object_name(name: str) -> bool:
    """Return True if a name has the form that :func:`object_name` gives, which nobody else's objects have."""
    return re.fullmatch(r"flow-[a-z0-9]{1,26}-[0-9a-f]{8}-[1-9][0-9]*", name) is not None
