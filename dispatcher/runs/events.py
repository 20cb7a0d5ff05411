"""One recorded lifecycle fact of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from dispatcher.runs.states import State


class Kind(StrEnum):
    """What happened."""

    QUEUED = "queued"  #: accepted, or a retry came due
    CLAIMED = "claimed"  #: a worker took it
    PROVISIONING = "provisioning"  #: the intent is stored
    PENDING = "pending"  #: the infrastructure was created
    STARTED = "started"  #: the runner claimed the attempt (``on_start``)
    RELEASED = "released"  #: a claim was given back before anything ran
    CANCELLING = "cancelling"  #: a cancel was asked for
    UNKNOWN = "unknown"  #: we lost sight of the infrastructure
    SEEN = "seen"  #: we see it again
    EXITED = "exited"  #: the attempt ended (``on_exit``); once per attempt, always


@dataclass(frozen=True, kw_only=True)
class Event:
    """A lifecycle fact.

    ``time`` is in seconds since the epoch by the server's clock. ``data`` holds JSON values: ``owner`` when claimed;
    ``cause``, ``reason``, ``message``, ``exit_code``, ``on_exit`` and ``final`` (whether the run ended with this
    attempt) when exited; and the ``due`` time when another attempt follows.
    """

    run_id: str
    attempt: int
    kind: Kind
    state: State
    time: float
    flow: str = ""
    labels: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Deterministic, so that a subscriber can deduplicate: ``run:attempt:kind``."""
        return f"{self.run_id}:{self.attempt}:{self.kind}"

    @property
    def final(self) -> bool:
        """Whether the run ended with this event."""
        return self.kind is Kind.EXITED and bool(self.data.get("final"))

    @cached_property
    def fact(self) -> str:
        """All but the time, as JSON."""
        fact = {"run": self.run_id, "attempt": self.attempt, "kind": self.kind, "state": self.state, "flow": self.flow}
        if self.labels:
            fact["labels"] = self.labels
        if self.data:
            fact["data"] = self.data
        return json.dumps(fact)

    def to_fields(self) -> dict[str, str]:
        """Two text fields, as a stream stores them: few, because each costs the server in every event."""
        return {"fact": self.fact, "time": repr(self.time)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Event:
        """The inverse of :meth:`to_fields`."""
        fact = json.loads(fields["fact"])
        return cls(
            run_id=fact["run"],
            attempt=fact["attempt"],
            kind=Kind(fact["kind"]),
            state=State(fact["state"]),
            time=float(fields["time"]),
            flow=fact["flow"],
            labels=tuple(fact.get("labels", ())),
            data=fact.get("data", {}),
        )
