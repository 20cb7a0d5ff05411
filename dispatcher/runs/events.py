"""The events of a run: recorded facts of its lifecycle. Made by transitions, read by subscribers and callbacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from dispatcher.runs.states import State
from dispatcher.support.parsing import HIGHEST, Fields, number_of, read_object, word


class EventKind(StrEnum):
    """The kind of an event."""

    QUEUED = "queued"  #: accepted, or a retry came due
    CLAIMED = "claimed"  #: a worker took it
    PROVISIONING = "provisioning"  #: the request for infrastructure is stored
    PENDING = "pending"  #: the infrastructure was created
    WAITING = "waiting"  #: why it waits has changed
    STARTED = "started"  #: the runner claimed the attempt (``on_start``)
    RELEASED = "released"  #: a claim was given back before anything ran
    WORKERS = "workers"  #: the number of workers of its own cluster has changed, or one was lost
    CANCELLING = "cancelling"  #: a cancel was requested
    UNKNOWN = "unknown"  #: the infrastructure can't be observed any more
    SEEN = "seen"  #: it can be observed again
    EXITED = "exited"  #: the attempt ended (``on_exit``); once per attempt, always
    OTHER = "other"  #: a kind of another release; its word is in :attr:`Event.name`


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact of a run's lifecycle.

    ``time`` is in seconds since the epoch by the server's clock. ``state`` is the run's state after it. ``data`` holds
    JSON values: ``owner`` when claimed; ``cause``, ``reason`` and ``message`` when waiting, none of them
    once nothing holds it any more; ``wanted``, ``running`` and ``lost``, the numbers of workers, with ``worker``,
    ``cause``, ``reason``, ``message`` and ``exit_code`` of the last one lost and ``losses`` of several, when workers;
    ``cause``, ``reason``, ``message``, ``exit_code``, ``on_exit`` and ``final``
    (True if the run ended with this attempt) when exited; and the ``due`` time if another attempt follows. ``name`` is
    the kind's word if it is one of another release, else empty.
    """

    run_id: str
    attempt: int
    kind: EventKind
    state: State
    time: float
    flow: str = ""
    labels: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def id(self) -> str:
        """A deterministic id, by which a subscriber can deduplicate: ``run:attempt:kind``.

        An attempt may wait for several reasons, one after the other, and its workers change: then the time is a part
        of it.
        """
        kind = f"{self.run_id}:{self.attempt}:{self.name or self.kind}"
        return f"{kind}:{self.time:.6f}" if self.kind in _REPEATED else kind

    @property
    def final(self) -> bool:
        """Return True if the run ended with this event."""
        return self.kind is EventKind.EXITED and bool(self.data.get("final"))

    @cached_property
    def fact(self) -> str:
        """All fields but the time, as JSON."""
        kind = self.name or self.kind
        fact = {"run": self.run_id, "attempt": self.attempt, "kind": kind, "state": self.state, "flow": self.flow}
        if self.labels:
            fact["labels"] = self.labels
        if self.data:
            fact["data"] = self.data
        return json.dumps(fact)

    def to_fields(self) -> dict[str, str]:
        """Return two text fields, as a stream stores them: few, because each costs the server in every event."""
        return {"fact": self.fact, "time": repr(self.time)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Event:
        """Parse what :meth:`to_fields` returns.

        Raises:
            Malformed: the fields hold no event.
        """
        stored = Fields(fields, "event")
        fact = read_object(stored.text("fact"), "event")
        name = fact.name("kind")
        kind = EventKind(name) if name in _KINDS else EventKind.OTHER
        return cls(
            run_id=fact.name("run"),
            attempt=fact.whole("attempt"),
            kind=kind,
            state=word(State, fact.get("state"), "event: state"),
            time=number_of(stored.text("time"), "event: time"),
            flow=fact.name("flow", ""),
            labels=fact.names("labels", ()),
            data=_data(Fields(fact.object("data", {}), "event: data")),
            name=name if kind is EventKind.OTHER and name != EventKind.OTHER else "",
        )


_KINDS = frozenset(str(kind) for kind in EventKind)

#: Kinds of which an attempt may have several events.
_REPEATED = frozenset({EventKind.WAITING, EventKind.WORKERS})


def _data(data: Fields) -> Mapping[str, Any]:
    """Check the types of the data on which readers of events rely."""
    for name in ("cause", "reason", "message", "owner", "on_exit", "worker"):
        data.optional_text(name)
    data.optional_number("due")
    data.flag("final", False)
    if data.data.get("exit_code") is not None:
        data.whole("exit_code", least=-HIGHEST)
    for name in ("wanted", "running", "lost"):
        data.whole(name, 0)
    return data.data
