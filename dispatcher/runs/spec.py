"""The spec of a run: what its submitter asks for, signed. Built by :mod:`dispatcher.submission`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dispatcher.errors import Malformed
from dispatcher.runs.options import DEFAULT_RESULT_TTL, Options
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import LOCAL, Route
from dispatcher.runs.value import Value
from dispatcher.support.parsing import read_object, run_id_of

#: Required of the worker: run the flow in a process that has run nothing before, and run nothing after it there.
FRESH_PROCESS = "fresh_process"

#: Required of the worker: import the project's modules from code bundles, of the spec or of the storage.
BUNDLE = "bundle"

#: The features that this release knows. A spec requires those that it uses (:attr:`Spec.requires`): each stands for a
#: field that changes what may happen, such as a limit, and that an earlier release doesn't know.
FEATURES: frozenset[str] = frozenset({FRESH_PROCESS, BUNDLE})

#: Seconds of a day, the unit of :attr:`Spec.day`. Uses of specs whose signatures expire on one day are stored together.
DAY = 86400.0

#: Most shared blobs of a run. Each costs a step when the run is accepted and when it ends.
MOST_BLOBS = 16


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The request of a submitter. Its bytes are signed and never change.

    ``storage`` and ``environment`` are the JSON of those values. ``location`` is the flow's address in the storage.
    ``blobs`` are the shared blobs (flow, large parameters) that must outlive the run. ``python`` is the submitter's
    ``major.minor``, ``packages`` are the versions of the packages that the pickles name. ``key_id`` names the signing
    key; ``expires`` is the time (seconds since the epoch) after which the signature is void, and a spec without it is
    refused. ``requires`` are the features that a worker must know; one that doesn't leaves the run to others.
    ``bundles`` are the blobs that hold the files of the flow's project (:mod:`dispatcher.code`), first first on
    ``sys.path``. ``parent`` is the run whose flow submitted this one, empty if none did; it is informational only.
    Fields of another release aren't read, but stay in the bytes.
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
    bundles: tuple[str, ...] = ()
    parent: str = ""

    @property
    def unknown_features(self) -> tuple[str, ...]:
        """The required features that this release doesn't know."""
        return tuple(feature for feature in self.requires if feature not in FEATURES)

    @property
    def labels(self) -> tuple[str, ...]:
        """The environment's labels."""
        return self.route.labels

    @property
    def retry(self) -> Retry:
        """The retry policy; without one nothing is repeated."""
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
        return int((self.expires or 0.0) // DAY)

    @property
    def kind(self) -> tuple[str, Route, tuple[str, ...], bool, float | None, int, tuple[str, ...]]:
        """All that accepting and claiming depend on: records of runs of one kind are alike until then."""
        options = self.options
        return self.flow, self.route, self.tags, self.on_exit, options.start_within, self.day, self.requires

    def to_bytes(self) -> bytes:
        """Return the bytes that are signed and stored."""
        data = {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "parameters": self.parameters.to_json(),
            "route": self.route.to_json(),
            "options": self.options.to_json(),
        }
        return json.dumps(data, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Spec:
        """Parse what :meth:`to_bytes` returns.

        Raises:
            Malformed: the bytes hold no spec.
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
            bundles=data.names("bundles", ()),
            parent=data.name("parent", "") and run_id_of(data.name("parent").encode(errors="replace")),
        )


class Unreadable(Spec):
    """An empty spec in place of one that can't be read."""


def unreadable(run_id: str) -> Unreadable:
    """Return an empty spec for a run whose own can't be read."""
    return Unreadable(
        run_id=run_id,
        flow="?",
        storage={},
        location="",
        parameters=Value(codec="json", inline="{}"),
        environment={},
        route=Route(backend=LOCAL),
    )
