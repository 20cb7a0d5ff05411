"""The request of a submitter: a run's signed spec, and the values that travel with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dispatcher.errors import Malformed
from dispatcher.runs.options import DEFAULT_RESULT_TTL, Options
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import LOCAL, Route
from dispatcher.support.parsing import Fields, read_object, run_id_of

#: The flow runs in a process that has run nothing before, and runs nothing after it.
FRESH_PROCESS = "fresh_process"

#: What a spec may require (:attr:`Spec.requires`) and this release does: each word is a field that changes what may
#: happen, such as a limit, and that the release before didn't know.
FEATURES: frozenset[str] = frozenset({FRESH_PROCESS})


#: Most shared blobs of a run: each costs a step of its acceptance and of its end.
MOST_BLOBS = 16


@dataclass(frozen=True, kw_only=True)
class Value:
    """A parameter set, result or exception: JSON text, or a sealed pickle; inline, or the name of a blob.

    ``codec`` is ``json`` or ``pickle``, or another release's word; exactly one of ``inline`` (text; pickles in base64)
    and ``blob`` (a name in :class:`~dispatcher.records.base.Blobs`) is set. ``digest`` is the SHA-256 of the raw bytes,
    in hex; ``size`` is theirs, in bytes; ``mac`` authenticates a sealed pickle made by a runner (parameters are covered
    by the spec's signature instead).
    """

    codec: str
    inline: str | None = None
    blob: str | None = None
    digest: str = ""
    size: int = 0
    mac: str = ""
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)  #: fields of another release, as they came

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        own = {name: value for name, value in self.__dict__.items() if value not in (None, "") and name != "others"}
        return {**self.others, **own} if self.others else own

    @classmethod
    def from_json(cls, data: Any) -> Value:
        """The inverse of :meth:`to_json`.

        Raises:
            Malformed: it is none.
        """
        given = Fields(data, "value")
        return cls(
            codec=given.name("codec"),
            inline=given.optional_text("inline"),
            blob=given.optional_text("blob"),
            digest=given.name("digest", ""),
            size=given.whole("size", 0),
            mac=given.name("mac", ""),
            others=given.but(_OF_VALUE),
        )


_OF_VALUE = frozenset(f.name for f in fields(Value)) - {"others"}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The request of a submitter; its bytes are signed and never change.

    ``storage`` and ``environment`` are the JSON of those values, ``location`` is the flow's address in the storage,
    ``blobs`` the shared blobs (flow, large parameters) that must outlive the run, ``python`` the submitter's
    ``major.minor``, ``packages`` the versions of the packages that the pickles name, ``key_id`` the signing key,
    ``expires`` the time (seconds since the epoch) after which the signature is void; one without is refused.
    ``requires`` names what a worker must know beyond the first release's fields: one that doesn't leaves the run to
    others. ``parent`` is the run whose flow submitted this one, empty if none did: for people, nothing follows from it.
    Fields of another release aren't read; they stay in the bytes.
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
    requires: tuple[str, ...] = ()
    parent: str = ""

    @property
    def lacking(self) -> tuple[str, ...]:
        """Of what it requires, what this release doesn't know."""
        return tuple(feature for feature in self.requires if feature not in FEATURES)

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
    def kind(self) -> tuple[str, Route, tuple[str, ...], bool, float | None, int, tuple[str, ...]]:
        """All on which an acceptance and a claim depend: runs that have it in common look the same so far."""
        options = self.options
        return self.flow, self.route, self.tags, self.on_exit, options.start_within, self.day, self.requires

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
        """The inverse of :meth:`to_bytes`.

        Raises:
            Malformed: they hold no spec.
        """
        data = read_object(raw, "spec")
        blobs = data.names("blobs", ())
        if len(blobs) > MOST_BLOBS:
            raise Malformed(f"spec: more than {MOST_BLOBS} blobs")
        return cls(
            run_id=data.name("run_id"),
            flow=data.name("flow"),
            storage=data.object("storage"),
            location=data.text("location"),
            parameters=Value.from_json(data.get("parameters")),
            environment=data.object("environment"),
            route=Route.from_json(data.get("route")),
            options=Options.from_json(data.get("options", {})),
            on_start=data.flag("on_start", False),
            on_exit=data.flag("on_exit", False),
            python=data.name("python", ""),
            packages=data.object("packages", {}),
            blobs=blobs,
            key_id=data.name("key_id", ""),
            expires=data.optional_number("expires"),
            requires=data.names("requires", ()),
            parent=data.name("parent", "") and run_id_of(data.name("parent").encode(errors="replace")),
        )


class Unreadable(Spec):
    """A spec that says nothing, in the place of one that can't be read."""


def unreadable(run_id: str) -> Unreadable:
    """The spec of a run whose own can't be read."""
    return Unreadable(
        run_id=run_id,
        flow="?",
        storage={},
        location="",
        parameters=Value(codec="json", inline="{}"),
        environment={},
        route=Route(backend=LOCAL),
    )
