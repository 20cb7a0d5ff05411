"""The record of a run: everything remembered of it, and its flat fields as the records store them.

Changed only by the functions of :mod:`dispatcher.runs.transitions`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import partial
from typing import Any

from dispatcher.errors import Malformed
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.spec import Spec, Unreadable, unreadable
from dispatcher.runs.states import TERMINAL, Cause, State
from dispatcher.runs.wait import Wait
from dispatcher.support.parsing import (
    Fields,
    decoded,
    name_of,
    number_of,
    read_json,
    run_id_of,
    whole_of,
    word,
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything remembered of a run. Times are in seconds since the epoch by the server's clock.

    ``version`` grows with each change (compare-and-set), ``epoch`` with each claim or takeover (fencing). ``attempt``
    counts from 1. ``owner`` is the worker, or for containers the shard, that is responsible for the run.
    """

    id: str
    spec_bytes: bytes
    signature: str
    spec_digest: str
    key: str = ""  #: the idempotency key; empty: none
    state: State = State.QUEUED
    version: int = 0
    attempt: int = 1
    epoch: int = 0
    owner: str = ""
    created_at: float = 0.0
    queued_at: float = 0.0  #: when this attempt was queued, or became due
    rung_at: float = 0.0  #: when its doorbell was last rung
    rings: int = 0  #: how often, for this attempt
    due_at: float | None = None  #: AWAITING_RETRY: when the next attempt is due; ExitCall.DUE: when to ring again
    started_at: float | None = None  #: when the attempt was claimed
    settled_at: float | None = None  #: when the outcome was stored; ``on_exit`` is called after that
    ended_at: float | None = None  #: when it came to its terminal state
    holder: str = ""  #: the process that claimed the attempt
    request: Mapping[str, Any] | None = None  #: the exact request to the backend, stored before it is sent
    handle: Mapping[str, Any] | None = None  #: the infrastructure of this attempt
    leftovers: tuple[Mapping[str, Any], ...] = ()  #: infrastructure of ended attempts, until it is confirmed gone
    unknown_since: float | None = None  #: since when the infrastructure can't be observed
    unknown_why: str = ""  #: what kept it from being observed first; empty if that isn't known
    last_cause: Cause | None = None  #: why it waits, or, once it runs, why it is being ended
    last_message: str = ""  #: the message that came with it
    wait: Wait | None = None  #: why it waits now, for people to see
    workers: ClusterState | None = None  #: of its own cluster, if the attempt has one
    paused: float = 0.0  #: seconds that a quota queue held it, until ``paused_since``
    paused_since: float | None = None  #: since when a quota queue holds it
    times: Mapping[str, Mapping[str, float]] | None = None  #: attempt → moment of its infrastructure → time
    outcome: Outcome | None = None
    exit_call: ExitCall = ExitCall.NONE
    retries_used: int = 0
    free_retries: int = 0
    change: str = ""  #: nonce of the last change, so that a repeated commit is recognised

    @property
    def spec(self) -> Spec:
        """The spec, parsed from its bytes. Verify the signature before trusting it.

        Bytes that can't be parsed give an empty spec, so that the run can still be shown and ended.
        """
        cached: Spec | None = self.__dict__.get("_spec")
        if cached is None:
            try:
                cached = Spec.from_bytes(self.spec_bytes)
            except Malformed:
                cached = unreadable(self.id)
            self.__dict__["_spec"] = cached
        return cached

    @property
    def verified(self) -> bool:
        """Return True if this process has verified the signature. Never stored; copies with the same spec keep it."""
        return "_verified" in self.__dict__

    def mark_verified(self) -> None:
        """Note that the signature holds. Call only after verifying it."""
        self.__dict__["_verified"] = True

    def mark_unverified(self) -> None:
        """Note that the signature isn't verified."""
        self.__dict__.pop("_verified", None)

    def mark_verified_like(self, before: Record) -> None:
        """Note that the signature holds, if ``before`` is verified and has the same signed fields."""
        if before.verified and all(getattr(self, name) == getattr(before, name) for name in _SIGNED):
            self.mark_verified()

    @property
    def foreign(self) -> bool:
        """Return True if it is in a state of another release, in which this release changes nothing."""
        return self.state is State.UNKNOWN

    @property
    def unplaceable(self) -> bool:
        """Return True if this release can't tell the indexes that hold it."""
        return self.foreign or isinstance(self.spec, Unreadable)

    @property
    def terminal(self) -> bool:
        """Return True if it has ended."""
        return self.state in TERMINAL

    @property
    def settled(self) -> State | None:
        """The terminal state of a flow that has ended, while ``on_exit`` is called or due; else None."""
        if self.settled_at is None or self.outcome is None or self.state not in {State.RUNNING, State.CANCELLING}:
            return None
        return self.outcome.state

    @property
    def awaits_workers(self) -> bool:
        """Return True if its runner has claimed the attempt, but waits for workers of its own cluster."""
        waits = self.state is State.RUNNING and self.workers is not None and not self.workers.ready
        return waits and self.settled_at is None

    @property
    def expires_at(self) -> float | None:
        """The time at which retention ends; None while the run is open."""
        return None if self.ended_at is None else self.ended_at + self.spec.result_ttl

    @property
    def start_by(self) -> float | None:
        """The time at which ``start_within`` passes; None without one, or while a quota queue holds the run."""
        within = self.spec.options.start_within
        return None if within is None or self.paused_since is not None else self.queued_at + self.paused + within

    def paused_at(self, now: float) -> float:
        """Return the seconds that a quota queue has held this attempt."""
        return self.paused + (0.0 if self.paused_since is None else max(0.0, now - self.paused_since))

    def timed(self, attempt: int, times: Mapping[str, float] | None) -> Mapping[str, Mapping[str, float]] | None:
        """Return :attr:`times` with further moments of one attempt. A moment that is there already keeps its time."""
        all_times = self.times or {}
        own = all_times.get(str(attempt), {})
        return self.times if not times or times.keys() <= own.keys() else {**all_times, str(attempt): {**times, **own}}

    def but(self, **changes: Any) -> Record:
        """Return a copy with some fields changed."""
        if not changes.keys() <= _DEFAULTS.keys():
            raise TypeError(f"a record has no {', '.join(sorted(changes.keys() - _DEFAULTS.keys()))}")
        after = object.__new__(Record)  # replace() is slower, and each submit and transition copies
        after.__dict__.update(self.__dict__, **changes)
        if "spec_bytes" in changes:
            after.__dict__.pop("_spec", None)
        if not _SIGNED.isdisjoint(changes):
            after.mark_unverified()
        return after

    def to_fields(self) -> dict[str, bytes | str]:
        """Return flat fields, as a hash stores them. A field with its default value is left out."""
        flat: dict[str, bytes | str] = {}
        values = self.__dict__
        for name, default in _DEFAULTS.items():
            value = values[name]
            if name in _REQUIRED or value != default:
                flat[name] = _dump(value)
        return flat

    def changes_since(self, before: Record) -> tuple[dict[str, bytes | str], list[str]]:
        """Return the fields of :meth:`to_fields` that differ from ``before``, and the names of those that are gone."""
        changed: dict[str, bytes | str] = {}
        gone: list[str] = []
        old, new = before.__dict__, self.__dict__
        for name, default in _DEFAULTS.items():
            value = new[name]
            if value is old[name] or value == old[name]:
                continue
            if value == default and name not in _REQUIRED:
                gone.append(name)
            else:
                changed[name] = _dump(value)
        return changed, gone

    @classmethod
    def from_fields(cls, data: Mapping[str, bytes]) -> Record:
        """Parse what :meth:`to_fields` returns. Fields of another release are ignored, and stay in the storage.

        Raises:
            Malformed: a required field is missing, or a field isn't as a release writes it.
        """
        if not data.keys() >= _REQUIRED:
            raise Malformed(f"record: {', '.join(sorted(_REQUIRED - data.keys()))} is missing")
        return cls(**_load(data))

    def accepted(self, at: float, data: Mapping[str, bytes | None]) -> Record:
        """Return the record with the time of its acceptance and its :data:`FIXED` fields.

        Raises:
            Malformed: as :meth:`from_fields`.
        """
        fixed = {name: _DEFAULTS[name] if raw is None else _LOADERS[name](raw) for name, raw in data.items()}
        if MISSING in fixed.values():
            raise Malformed("record: a field that never changes is missing")
        return self.but(created_at=at, queued_at=at, rung_at=at, **fixed)

    def later(self, data: Mapping[str, bytes]) -> Record:
        """Return the same run's record at a later time.

        Args:
            data: all its fields except the :data:`FIXED` ones.

        Raises:
            Malformed: as :meth:`from_fields`.
        """
        kept_fields = {name: value for name, value in self.__dict__.items() if name in FIXED or name in _NOT_STORED}
        after = object.__new__(Record)
        after.__dict__.update(_DEFAULTS, **{**_load(data), **kept_fields})
        return after


def _dump(value: Any) -> bytes | str:
    match value:
        case bytes() | StrEnum():
            return value
        case None:
            return ""
        case Outcome() | Wait() | ClusterState():
            return json.dumps(value.to_json())
        case Mapping() | tuple():
            return json.dumps(value)
        case float():
            return repr(value)
        case str():
            return value if value.isascii() else value.encode(errors="backslashreplace")
        case _:
            return str(value)


def _load(data: Mapping[str, bytes]) -> dict[str, Any]:
    return {name: _LOADERS[name](raw) for name, raw in data.items() if name in _LOADERS}


def _optional(load: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda raw: load(raw) if raw else None


def _word(enumeration: type[StrEnum], field_name: str) -> Callable[[bytes], Any]:
    return lambda raw: word(enumeration, name_of(raw, field_name), field_name)


def _handle(raw: bytes) -> Mapping[str, Any]:
    return Fields(read_json(raw, "record: handle"), "record: handle").data


def _request(raw: bytes) -> Mapping[str, Any]:
    return _checked_request(Fields(read_json(raw, "request"), "request"))


def _checked_request(request: Fields) -> Mapping[str, Any]:
    request.name("shard", "")
    request.whole("epoch", 0)
    return request.data


def _times(raw: bytes) -> Mapping[str, Mapping[str, float]]:
    times = Fields(read_json(raw, "times"), "times")
    for attempt in times.data:
        moments = Fields(times.object(attempt), "times")
        for moment in moments.data:
            moments.number(moment)
    return times.data


def _leftovers(raw: bytes) -> tuple[Mapping[str, Any], ...]:
    leftovers = read_json(raw, "leftovers")
    if not isinstance(leftovers, list):
        raise Malformed("leftovers: must be a list")
    for leftover in leftovers:
        parsed = Fields(leftover, "leftovers")
        parsed.whole("attempt")
        parsed.optional_object("handle")
        parsed.optional_text("pending")
        parsed.number("ended", 0.0)
        parsed.flag("claimed", False)
        if parsed.optional_object("request") is not None:
            _checked_request(Fields(parsed.object("request"), "leftovers: request"))
    return tuple({"handle": None, "request": None, **leftover} for leftover in leftovers)


_DEFAULTS = {f.name: f.default for f in fields(Record)}

# Attributes that aren't stored. They are dropped when a signed field changes.
_NOT_STORED = ("_spec", "_verified")
_SIGNED = frozenset({"id", "spec_bytes", "signature"})

#: Fields that never change.
FIXED = ("id", "spec_bytes", "signature", "spec_digest", "key")

_REQUIRED = frozenset({"id", "spec_bytes", "signature", "spec_digest", "state", "version"})


def _each(load: Callable[..., Any], *names: str) -> dict[str, Callable[[bytes], Any]]:
    return {name: partial(load, subject=f"record: {name}") for name in names}


def _each_optional(load: Callable[..., Any], *names: str) -> dict[str, Callable[[bytes], Any]]:
    return {name: _optional(loader) for name, loader in _each(load, *names).items()}


_LOADERS: Mapping[str, Callable[[bytes], Any]] = {
    "id": run_id_of,
    **_each(name_of, "signature", "spec_digest", "key", "owner", "holder", "change"),
    **_each(decoded, "last_message", "unknown_why"),
    **_each(whole_of, "version", "attempt", "epoch", "rings", "retries_used", "free_retries"),
    **_each(number_of, "created_at", "queued_at", "rung_at", "paused"),
    **_each_optional(number_of, "due_at", "started_at", "settled_at", "ended_at", "unknown_since", "paused_since"),
    "handle": _optional(_handle),
    "request": _optional(_request),
    "times": _optional(_times),
    "leftovers": _leftovers,
    "spec_bytes": bytes,
    "state": _word(State, "record: state"),
    "wait": _optional(lambda raw: Wait.from_json(read_json(raw, "wait"))),
    "workers": _optional(lambda raw: ClusterState.from_json(read_json(raw, "workers"))),
    "exit_call": _word(ExitCall, "record: exit_call"),
    "last_cause": _optional(_word(Cause, "record: last_cause")),
    "outcome": _optional(lambda raw: Outcome.from_json(read_json(raw, "outcome"))),
}
