"""The memory of a run: its signed spec, and its record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from functools import partial
from typing import Any

from dispatcher.errors import Malformed
from dispatcher.runs.spec import Spec, Unreadable, Value, unreadable
from dispatcher.runs.states import TERMINAL, Cause, ExitCall, State, state_of
from dispatcher.support.parsing import (
    HIGHEST,
    Fields,
    decoded,
    name_of,
    number_of,
    read_json,
    run_id_of,
    whole_of,
    word,
)

__all__ = ["FIXED", "ExitCall", "Outcome", "Record", "Spec", "Value"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of an attempt: ``cause`` None is success, with ``result``; else the facts of the end.

    ``reason`` is the raw reason word of the infrastructure or the exception's type name, ``message`` a sentence.
    """

    cause: Cause | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    traceback: str = ""
    log_tail: tuple[str, ...] = ()
    result: Value | None = None
    exception: Value | None = None
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)  #: what another release said, as it came

    @property
    def state(self) -> State:
        """The terminal state that it means."""
        return state_of(self.cause)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        data: dict[str, Any] = {name: v for name in _OF_OUTCOME if (v := getattr(self, name)) not in (None, "", ())}
        for name in ("result", "exception"):
            if name in data:
                data[name] = data[name].to_json()
        if not self.others:
            return data
        theirs = {name: value for name, value in self.others.items() if name != "cause"}
        return {**data, **(self.others if self.cause is Cause.UNKNOWN else theirs)}

    @classmethod
    def from_json(cls, data: Any) -> Outcome:
        """The inverse of :meth:`to_json`.

        Raises:
            Malformed: it is none.
        """
        given = Fields(data, "outcome")
        cause = None if given.data.get("cause") is None else word(Cause, given.get("cause"), "outcome: cause")
        theirs = cause is Cause.UNKNOWN and given.get("cause") != Cause.UNKNOWN
        code = given.data.get("exit_code")
        return cls(
            cause=cause,
            reason=given.text("reason", ""),
            message=given.text("message", ""),
            exit_code=None if code is None else given.whole("exit_code", least=-HIGHEST),
            traceback=given.text("traceback", ""),
            log_tail=given.texts("log_tail", ()),
            result=None if given.data.get("result") is None else Value.from_json(given.get("result")),
            exception=None if given.data.get("exception") is None else Value.from_json(given.get("exception")),
            others=given.but(name for name in _OF_OUTCOME if name != "cause" or not theirs),
        )


_OF_OUTCOME = tuple(f.name for f in fields(Outcome) if f.name != "others")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything remembered of a run. Times are in seconds since the epoch by the server's clock.

    ``version`` grows with each change (compare-and-set); ``epoch`` grows with each claim or takeover (fencing);
    ``attempt`` counts from 1. ``owner`` is the worker, or for containers the shard, that answers for it.
    """

    id: str
    spec_bytes: bytes
    signature: str
    spec_digest: str
    key: str = ""  #: the idempotency key, if one was given
    state: State = State.QUEUED
    version: int = 0
    attempt: int = 1
    epoch: int = 0
    owner: str = ""
    created_at: float = 0.0
    queued_at: float = 0.0  #: when this attempt was queued, or came due
    rung_at: float = 0.0  #: when its doorbell was last rung
    rings: int = 0  #: how often, for this attempt
    due_at: float | None = None  #: AWAITING_RETRY: when the next attempt is due; ExitCall.DUE: when to ring again
    started_at: float | None = None  #: attempt claim
    settled_at: float | None = None  #: the outcome was stored; ``on_exit`` comes now
    ended_at: float | None = None  #: the terminal state
    holder: str = ""  #: which process claimed the attempt
    request: Mapping[str, Any] | None = None  #: the intent: the exact request to the backend
    handle: Mapping[str, Any] | None = None  #: the infrastructure of this attempt
    leftovers: tuple[Mapping[str, Any], ...] = ()  #: infrastructure of ended attempts, until confirmed gone
    unknown_since: float | None = None  #: we lost sight of the infrastructure
    last_cause: Cause | None = None  #: what it waits for, or, once it runs, why it is being ended from outside
    last_message: str = ""  #: what was said of it then
    paused: float = 0.0  #: seconds for which a quota queue held it, up to ``paused_since``
    paused_since: float | None = None  #: a quota queue holds it
    times: Mapping[str, Mapping[str, float]] | None = None  #: attempt → what its infrastructure went through, and when
    outcome: Outcome | None = None
    exit_call: ExitCall = ExitCall.NONE
    retries_used: int = 0
    free_retries: int = 0
    change: str = ""  #: nonce of the last change, so that a repeated commit is recognised

    @property
    def spec(self) -> Spec:
        """The spec, read from its bytes. Verify the signature before trusting it.

        Bytes that can't even be read give a spec that says nothing, so that the run can still be shown and ended.
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
        """True if this process has checked that the signature holds. Never stored; copies keep it with the spec."""
        return "_verified" in self.__dict__

    def mark_verified(self) -> None:
        """Note that the signature holds. Called by who has just checked it."""
        self.__dict__["_verified"] = True

    def unmark(self) -> None:
        """Forget what was noted of the signature."""
        self.__dict__.pop("_verified", None)

    def mark_like(self, before: Record) -> None:
        """Note that the signature holds, if ``before`` has the very same signed bytes and it holds there."""
        if before.verified and all(getattr(self, name) == getattr(before, name) for name in _SIGNED):
            self.mark_verified()

    @property
    def foreign(self) -> bool:
        """Return True if it is in a state of another release: nothing of it is changed here."""
        return self.state is State.UNKNOWN

    @property
    def strange(self) -> bool:
        """Return True if it can't be told here in which indexes it stands."""
        return self.foreign or isinstance(self.spec, Unreadable)

    @property
    def terminal(self) -> bool:
        """Return True if it has ended."""
        return self.state in TERMINAL

    @property
    def settled(self) -> State | None:
        """The state in which its flow has ended, while ``on_exit`` is called or due; None before that, and once the run
        is over."""
        if self.settled_at is None or self.outcome is None or self.state not in {State.RUNNING, State.CANCELLING}:
            return None
        return self.outcome.state

    @property
    def expires_at(self) -> float | None:
        """When retention ends; None while the run is open."""
        return None if self.ended_at is None else self.ended_at + self.spec.result_ttl

    @property
    def start_by(self) -> float | None:
        """When ``start_within`` passes; None if it never does, or not while a quota queue holds the run."""
        within = self.spec.options.start_within
        return None if within is None or self.paused_since is not None else self.queued_at + self.paused + within

    def paused_at(self, now: float) -> float:
        """Seconds for which a quota queue has held this attempt."""
        return self.paused + (0.0 if self.paused_since is None else max(0.0, now - self.paused_since))

    def timed(self, attempt: int, times: Mapping[str, float] | None) -> Mapping[str, Mapping[str, float]] | None:
        """:attr:`times` with more of one attempt; what is known stays."""
        known = self.times or {}
        own = known.get(str(attempt), {})
        return self.times if not times or times.keys() <= own.keys() else {**known, str(attempt): {**times, **own}}

    def but(self, **changes: Any) -> Record:
        """A copy with some fields changed."""
        if not changes.keys() <= _DEFAULTS.keys():
            raise TypeError(f"a record has no {', '.join(sorted(changes.keys() - _DEFAULTS.keys()))}")
        after = object.__new__(Record)  # not replace(): every submit and every step comes by here
        after.__dict__.update(self.__dict__, **changes)
        if "spec_bytes" in changes:
            after.__dict__.pop("_spec", None)
        if not _SIGNED.isdisjoint(changes):
            after.unmark()
        return after

    def to_fields(self) -> dict[str, bytes | str]:
        """Flat fields, as a hash stores them; a field that holds its default is left out."""
        found: dict[str, bytes | str] = {}
        held = self.__dict__
        for name, default in _DEFAULTS.items():
            value = held[name]
            if name in _REQUIRED or value != default:
                found[name] = _dump(value)
        return found

    def changes_since(self, before: Record) -> tuple[dict[str, bytes | str], list[str]]:
        """Of :meth:`to_fields`: what differs from ``before``, and the names of what is no longer there."""
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
        """The inverse of :meth:`to_fields`. Fields of another release are left aside, and stay where they are stored.

        Raises:
            Malformed: a field is missing, or isn't as a release writes it.
        """
        if not data.keys() >= _REQUIRED:
            raise Malformed(f"record: {', '.join(sorted(_REQUIRED - data.keys()))} is missing")
        return cls(**_loaded(data))

    def accepted(self, at: float, data: Mapping[str, bytes | None]) -> Record:
        """The record with the time of its acceptance, and its :data:`FIXED` fields.

        Raises:
            Malformed: as :meth:`from_fields`.
        """
        own = {name: _DEFAULTS[name] if raw is None else _LOAD[name](raw) for name, raw in data.items()}
        if MISSING in own.values():
            raise Malformed("record: a field that never changes is missing")
        return self.but(created_at=at, queued_at=at, rung_at=at, **own)

    def later(self, data: Mapping[str, bytes]) -> Record:
        """The same run's record later on: all its fields, but for :data:`FIXED` ones.

        Raises:
            Malformed: as :meth:`from_fields`.
        """
        held = {name: value for name, value in self.__dict__.items() if name in FIXED or name in _MARKS}
        after = object.__new__(Record)
        after.__dict__.update(_DEFAULTS, **{**_loaded(data), **held})
        return after


def _dump(value: Any) -> bytes | str:
    match value:
        case bytes() | StrEnum():
            return value
        case None:
            return ""
        case Outcome():
            return json.dumps(value.to_json())
        case Mapping() | tuple():
            return json.dumps(value)
        case float():
            return repr(value)
        case str():
            return value if value.isascii() else value.encode(errors="backslashreplace")
        case _:
            return str(value)


def _loaded(data: Mapping[str, bytes]) -> dict[str, Any]:
    return {name: _LOAD[name](raw) for name, raw in data.items() if name in _LOAD}


def _optional(load: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda raw: load(raw) if raw else None


def _word(kind: type[StrEnum], what: str) -> Callable[[bytes], Any]:
    return lambda raw: word(kind, name_of(raw, what), what)


def _object(raw: bytes, subject: str) -> Mapping[str, Any]:
    return Fields(read_json(raw, subject), subject).data


def _request(raw: bytes) -> Mapping[str, Any]:
    return _checked_request(Fields(read_json(raw, "request"), "request"))


def _checked_request(given: Fields) -> Mapping[str, Any]:
    given.name("shard", "")
    given.whole("epoch", 0)
    return given.data


def _times(raw: bytes) -> Mapping[str, Mapping[str, float]]:
    times = Fields(read_json(raw, "times"), "times")
    for attempt in times.data:
        moments = Fields(times.object(attempt), "times")
        for moment in moments.data:
            moments.number(moment)
    return times.data


def _leftovers(raw: bytes) -> tuple[Mapping[str, Any], ...]:
    found = read_json(raw, "leftovers")
    if not isinstance(found, list):
        raise Malformed("leftovers: must be a list")
    for one in found:
        left = Fields(one, "leftovers")
        left.whole("attempt")
        left.optional_object("handle")
        left.optional_text("pending")
        left.number("ended", 0.0)
        left.flag("claimed", False)
        if left.optional_object("request") is not None:
            _checked_request(Fields(left.object("request"), "leftovers: request"))
    return tuple({"handle": None, "request": None, **one} for one in found)


_DEFAULTS = {f.name: f.default for f in fields(Record)}

# What isn't stored of a record, and goes where its signed fields change.
_MARKS = ("_spec", "_verified")
_SIGNED = frozenset({"id", "spec_bytes", "signature"})

#: Fields that never change.
FIXED = ("id", "spec_bytes", "signature", "spec_digest", "key")

_REQUIRED = frozenset({"id", "spec_bytes", "signature", "spec_digest", "state", "version"})


def _each(load: Callable[..., Any], *names: str) -> dict[str, Callable[[bytes], Any]]:
    return {name: partial(load, subject=f"record: {name}") for name in names}


def _some(load: Callable[..., Any], *names: str) -> dict[str, Callable[[bytes], Any]]:
    return {name: _optional(one) for name, one in _each(load, *names).items()}


_LOAD: Mapping[str, Callable[[bytes], Any]] = {
    "id": run_id_of,
    **_each(name_of, "signature", "spec_digest", "key", "owner", "holder", "change"),
    **_each(decoded, "last_message"),
    **_each(whole_of, "version", "attempt", "epoch", "rings", "retries_used", "free_retries"),
    **_each(number_of, "created_at", "queued_at", "rung_at", "paused"),
    **_some(number_of, "due_at", "started_at", "settled_at", "ended_at", "unknown_since", "paused_since"),
    **_some(_object, "handle"),
    "request": _optional(_request),
    "times": _optional(_times),
    "leftovers": _leftovers,
    "spec_bytes": bytes,
    "state": _word(State, "record: state"),
    "exit_call": _word(ExitCall, "record: exit_call"),
    "last_cause": _optional(_word(Cause, "record: last_cause")),
    "outcome": _optional(lambda raw: Outcome.from_json(read_json(raw, "outcome"))),
}
