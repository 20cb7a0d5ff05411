"""One recorded lifecycle fact of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
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

    def to_fields(self) -> dict[str, str]:
        """Flat text fields, as a stream stores them."""
        return {
            "run": self.run_id,
            "attempt": str(self.attempt),
            "kind": self.kind,
            "state": self.state,
            "time": repr(self.time),
            "flow": self.flow,
            "labels": json.dumps(self.labels),
            "data": json.dumps(self.data),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Event:
        """The inverse of :meth:`to_fields`."""
        return cls(
            run_id=fields["run"],
            attempt=int(fields["attempt"]),
            kind=Kind(fields["kind"]),
            state=State(fields["state"]),
            time=float(fields["time"]),
            flow=fields.get("flow", ""),
            labels=tuple(json.loads(fields.get("labels", "[]"))),
            data=json.loads(fields.get("data", "{}")),
        )
