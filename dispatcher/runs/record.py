"""What is remembered of a run: its signed spec, and its record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from dispatcher.runs.options import DEFAULT_RESULT_TTL, Options
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import Route
from dispatcher.runs.states import TERMINAL, Cause, State, state_of


class ExitCall(StrEnum):
    """How it stands with the environment's ``on_exit`` of the current attempt."""

    NONE = "none"  #: the environment has none
    WAITING = "waiting"  #: to be called by the runner after the flow
    DUE = "due"  #: the runner died first: a fresh process is to call it
    BEGUN = "begun"  #: it was started
    CALLED = "called"  #: it returned
    RAISED = "raised"  #: it raised
    INTERRUPTED = "interrupted"  #: it was started and did not end
    NOT_CALLED = "not called"  #: nobody could call it


@dataclass(frozen=True, kw_only=True)
class Value:
    """A parameter set, result or exception: JSON text, or a sealed pickle; inline, or the name of a blob.

    ``codec`` is ``json`` or ``pickle``; exactly one of ``inline`` (text; pickles in base64) and ``blob`` (a name in
    :class:`~dispatcher.records.base.Blobs`) is set. ``digest`` is the SHA-256 of the raw bytes, in hex; ``size`` is
    theirs, in bytes; ``mac`` authenticates a sealed pickle made by a runner (parameters are covered by the spec's
    signature instead).
    """

    codec: str
    inline: str | None = None
    blob: str | None = None
    digest: str = ""
    size: int = 0
    mac: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        return {name: value for name, value in self.__dict__.items() if value not in (None, "")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Value:
        """The inverse of :meth:`to_json`."""
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a submitter asked for; its bytes are signed and never change.

    ``storage`` and ``environment`` are the JSON of those values, ``location`` is the flow's address in the storage,
    ``blobs`` the shared blobs (flow, large parameters) that must outlive the run, ``python`` the submitter's
    ``major.minor``, ``packages`` the versions of the packages that the pickles name, ``key_id`` the signing key,
    ``expires`` the time (seconds since the epoch) after which the signature is void; a spec without one is refused.
    """

    run_id: str
    flow: str
    storage: Mapping[str, Any]
    location: str
    parameters: Value
    environment: Mapping[str, Any]
    route: Route
    options: Options = field(default_factory=Options)
    on_start: bool = False
    on_exit: bool = False
    python: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    blobs: tuple[str, ...] = ()
    key_id: str = ""
    expires: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The environment's labels."""
        return self.route.labels

    @property
    def retry(self) -> Retry:
        """The retry policy; none given is none at all."""
        return self.options.retries or Retry(0)

    @property
    def result_ttl(self) -> float:
        """Seconds from the terminal state to the end of retention."""
        return self.options.result_ttl or DEFAULT_RESULT_TTL

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's tags."""
        return self.options.tags or ()

    @property
    def day(self) -> int:
        """The day, since the epoch, on which the signature expires."""
        return int((self.expires or 0.0) // 86400.0)

    @property
    def kind(self) -> tuple[str, Route, tuple[str, ...], bool, float | None, int]:
        """All on which an acceptance and a claim depend: runs that have it in common look the same so far."""
        return self.flow, self.route, self.tags, self.on_exit, self.options.start_within, self.day

    def to_bytes(self) -> bytes:
        """The bytes that are signed and stored."""
        data = {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "parameters": self.parameters.to_json(),
            "route": self.route.to_json(),
            "options": self.options.to_json(),
        }
        return json.dumps(data, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Spec:
        """The inverse of :meth:`to_bytes`."""
        data = json.loads(raw.decode())
        return cls(
            **{
                **data,
                "parameters": Value.from_json(data["parameters"]),
                "route": Route.from_json(data["route"]),
                "options": Options.from_json(data["options"]),
                "blobs": tuple(data["blobs"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt ended: ``cause`` None is success, with ``result``; else the facts of the end.

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

    @property
    def state(self) -> State:
        """The terminal state that it means."""
        return state_of(self.cause)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        data: dict[str, Any] = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) not in (None, "", ())}
        for name in ("result", "exception"):
            if name in data:
                data[name] = data[name].to_json()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of :meth:`to_json`."""
        values = {name: Value.from_json(data[name]) for name in ("result", "exception") if name in data}
        cause = Cause(data["cause"]) if "cause" in data else None
        return cls(**{**data, **values, "cause": cause, "log_tail": tuple(data.get("log_tail", ()))})


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
            except (ValueError, KeyError, TypeError):
                cached = _unreadable(self.id)
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
    def terminal(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL

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
        """The inverse of :meth:`to_fields`."""
        return cls(**{name: _LOAD[name](raw) for name, raw in data.items() if name in _LOAD})

    def accepted(self, at: float, data: Mapping[str, bytes | None]) -> Record:
        """The record with the time of its acceptance, and its :data:`FIXED` fields."""
        own = {name: _DEFAULTS[name] if raw is None else _LOAD[name](raw) for name, raw in data.items()}
        return self.but(created_at=at, queued_at=at, rung_at=at, **own)

    def later(self, data: Mapping[str, bytes]) -> Record:
        """The same run's record later on: all its fields, but for :data:`FIXED` ones."""
        held = {name: value for name, value in self.__dict__.items() if name in FIXED or name in _MARKS}
        after = object.__new__(Record)
        after.__dict__.update(_DEFAULTS, **held, **{name: _LOAD[name](raw) for name, raw in data.items()})
        return after


def _unreadable(run_id: str) -> Spec:
    return Spec(
        run_id=run_id,
        flow="?",
        storage={},
        location="",
        parameters=Value(codec="json", inline="{}"),
        environment={},
        route=Route(backend="local"),
    )


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


def _optional(load: Any) -> Any:
    return lambda raw: load(raw) if raw else None


def _text(raw: bytes) -> str:
    return raw.decode()


def _number(raw: bytes) -> float:
    return float(raw)


_DEFAULTS = {f.name: f.default for f in fields(Record)}

# What isn't stored of a record, and goes where its signed fields change.
_MARKS = ("_spec", "_verified")
_SIGNED = frozenset({"id", "spec_bytes", "signature"})

#: Fields that never change.
FIXED = ("id", "spec_bytes", "signature", "spec_digest", "key")

_REQUIRED = frozenset({"id", "spec_bytes", "signature", "spec_digest", "state", "version"})

_LOAD: Mapping[str, Any] = {
    **dict.fromkeys(("id", "signature", "spec_digest", "key", "owner", "holder", "last_message", "change"), _text),
    **dict.fromkeys(("version", "attempt", "epoch", "rings", "retries_used", "free_retries"), int),
    **dict.fromkeys(("created_at", "queued_at", "rung_at", "paused"), _number),
    **dict.fromkeys(
        ("due_at", "started_at", "settled_at", "ended_at", "unknown_since", "paused_since"), _optional(_number)
    ),
    **dict.fromkeys(("request", "handle", "times"), _optional(json.loads)),
    "leftovers": lambda raw: tuple(json.loads(raw)),
    "spec_bytes": bytes,
    "state": lambda raw: State(raw.decode()),
    "exit_call": lambda raw: ExitCall(raw.decode()),
    "last_cause": _optional(lambda raw: Cause(raw.decode())),
    "outcome": _optional(lambda raw: Outcome.from_json(json.loads(raw))),
}
