"""One recorded lifecycle fact of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from dispatcher.runs.states import State
from dispatcher.support.parsing import HIGHEST, Fields, number_of, read_object, word


class Kind(StrEnum):
    """The kind of an event."""

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
    OTHER = "other"  #: something that another release knows: :attr:`Event.name` says what


@dataclass(frozen=True, kw_only=True)
class Event:
    """A lifecycle fact.

    ``time`` is in seconds since the epoch by the server's clock. ``data`` holds JSON values: ``owner`` when claimed;
    ``cause``, ``reason``, ``message``, ``exit_code``, ``on_exit`` and ``final`` (whether the run ended with this
    attempt) when exited; and the ``due`` time when another attempt follows. ``name`` is the kind's own word where it is
    one of another release.
    """

    run_id: str
    attempt: int
    kind: Kind
    state: State
    time: float
    flow: str = ""
    labels: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def id(self) -> str:
        """Deterministic, so that a subscriber can deduplicate: ``run:attempt:kind``."""
        return f"{self.run_id}:{self.attempt}:{self.name or self.kind}"

    @property
    def final(self) -> bool:
        """Return True if the run ended with this event."""
        return self.kind is Kind.EXITED and bool(self.data.get("final"))

    @cached_property
    def fact(self) -> str:
        """All but the time, as JSON."""
        kind = self.name or self.kind
        fact = {"run": self.run_id, "attempt": self.attempt, "kind": kind, "state": self.state, "flow": self.flow}
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
        """The inverse of :meth:`to_fields`.

        Raises:
            Malformed: they hold no event.
        """
        stored = Fields(fields, "event")
        fact = read_object(stored.text("fact"), "event")
        name = fact.name("kind")
        kind = Kind(name) if name in _KINDS else Kind.OTHER
        return cls(
            run_id=fact.name("run"),
            attempt=fact.whole("attempt"),
            kind=kind,
            state=word(State, fact.get("state"), "event: state"),
            time=number_of(stored.text("time"), "event: time"),
            flow=fact.name("flow", ""),
            labels=fact.names("labels", ()),
            data=_data(Fields(fact.object("data", {}), "event: data")),
            name=name if kind is Kind.OTHER and name != Kind.OTHER else "",
        )


_KINDS = frozenset(str(kind) for kind in Kind)


def _data(data: Fields) -> Mapping[str, Any]:
    """Check that the data on which readers of events rely is as they expect it."""
    for name in ("cause", "reason", "message", "owner", "on_exit"):
        data.optional_text(name)
    data.optional_number("due")
    data.flag("final", False)
    if data.data.get("exit_code") is not None:
        data.whole("exit_code", least=-HIGHEST)
    return data.data
