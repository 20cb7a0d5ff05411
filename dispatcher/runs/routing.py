"""The queue on which a run waits, and the queues that a worker serves. Pure.

A queue's name is the backend, the scope (laptop server: the virtual environment's digest) and the label set:
``kubernetes``, ``kubernetes:eu+gpu``, ``local@1a2b3c4d:research``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from dispatcher.errors import InvalidInput, Malformed
from dispatcher.support.parsing import Fields

#: The backends whose runs start in the worker's own process, and leave nothing outside of it.
LOCAL, REMOTE = "local", "remote"
IN_PROCESS = frozenset({LOCAL, REMOTE})

#: A name longer than this many bytes carries a digest in place of its labels.
LONGEST = 200

#: Most labels of a run, and most bytes of a label. The server holds submitters to them too, and to so many queues in
#: one installation: ``records/redis/lua/queues.lua``.
MOST_LABELS, LONGEST_LABEL, MOST_QUEUES = 64, 200, 10_000
# In a label: it would read as several, or as none.
_UNCLEAR = re.compile(r"[,\s\"']")
# Of a backend, and of a scope.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, order=True)
class Route:
    """The queue of a run: backend, label set, scope."""

    backend: str
    labels: tuple[str, ...] = ()
    scope: str = ""

    @property
    def queue(self) -> str:
        """The name of the Celery queue."""
        return _queue(self)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        return {"backend": self.backend, "labels": list(self.labels), "scope": self.scope}

    @classmethod
    def from_json(cls, data: Any) -> Route:
        """The inverse of :meth:`to_json`.

        Raises:
            Malformed: it is none: names of queues, and so keys and commands, are made of it.
        """
        given = Fields(data, "route")
        backend, labels, scope = given.name("backend"), given.names("labels"), given.name("scope", "")
        if len(labels) > MOST_LABELS:
            raise Malformed(f"route: more than {MOST_LABELS} labels")
        if not _NAME.fullmatch(backend) or (scope and not _NAME.fullmatch(scope)):
            raise Malformed("route: backend and scope must be names of letters, digits, '-', '_' and '.'")
        try:
            for label in labels:
                _check_label(label, "labels")
        except InvalidInput:
            raise Malformed("route: each of its labels must be non-empty, printable and short") from None
        return cls(backend, labels, scope)


@lru_cache(maxsize=1000)
def _queue(route: Route) -> str:
    head = f"{route.backend}@{route.scope}" if route.scope else route.backend
    if not route.labels:
        return head
    name = f"{head}:{'+'.join(quote(label, safe='-._~', errors='backslashreplace') for label in sorted(route.labels))}"
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(json.dumps(sorted(route.labels)).encode()).hexdigest()
    return f"{head}:sha256-{digest[:40]}"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The offer of a worker: what it serves. ``every_label`` (the laptop's worker) takes any label set."""

    backends: frozenset[str]
    labels: frozenset[str] = frozenset()
    scope: str = ""
    every_label: bool = False

    def serves(self, route: Route) -> bool:
        """Prefect's rule: a non-empty subset of the worker's labels; no labels go to workers without labels."""
        if route.backend not in self.backends or route.scope != self.scope:
            return False
        if self.every_label:
            return True
        if not route.labels:
            return not self.labels
        return frozenset(route.labels) <= self.labels

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads."""
        return {
            "backends": sorted(self.backends),
            "labels": sorted(self.labels),
            "scope": self.scope,
            "every_label": self.every_label,
        }

    @classmethod
    def from_json(cls, data: Any) -> Offer:
        """The inverse of :meth:`to_json`.

        Raises:
            Malformed: it is none.
        """
        given = Fields(data, "offer")
        return cls(
            backends=frozenset(given.names("backends")),
            labels=frozenset(given.names("labels", ())),
            scope=given.name("scope", ""),
            every_label=given.flag("every_label", False),
        )


def listed(labels: Iterable[str]) -> str:
    """Labels for people, sorted; one that holds a comma, a quote or a space stands in quotes: it is one label."""
    return ", ".join(
        json.dumps(label, ensure_ascii=False) if _UNCLEAR.search(label) else label for label in sorted(labels)
    )


def check_labels(labels: Iterable[str] | None, *, what: str = "labels") -> tuple[str, ...]:
    """The label set, sorted, without repetition.

    Raises:
        InvalidInput: a label is not a non-empty string without control characters, it or their number is over its
            bound, or ``labels`` is a bare string.
    """
    if labels is None:
        return ()
    if isinstance(labels, str) or not isinstance(labels, Collection | Iterable):
        raise InvalidInput(f"{what}: must be a list of strings, got {labels!r}; write [{labels!r}]")
    found = list(labels)
    for label in found:
        _check_label(label, what)
    different = tuple(sorted(set(found)))
    if len(different) > MOST_LABELS:
        raise InvalidInput(f"{what}: at most {MOST_LABELS}, got {len(different)}")
    return different


def _check_label(label: object, what: str) -> None:
    if not isinstance(label, str) or not label or not label.isprintable():
        raise InvalidInput(f"{what}: each must be a non-empty printable string, got {label!r}")
    if len(label.encode()) > LONGEST_LABEL:
        raise InvalidInput(f"{what}: each must have at most {LONGEST_LABEL} bytes, got {label[:20]!r}…")
