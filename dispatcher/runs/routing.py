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
from dispatcher.support.escaping import shown
from dispatcher.support.parsing import Fields

#: The backends whose runs start in the worker's own process, and leave nothing outside of it.
LOCAL, REMOTE = "local", "remote"
IN_PROCESS = frozenset({LOCAL, REMOTE})

#: A name longer than this many bytes carries a digest in place of its labels.
LONGEST = 200

#: Most labels of a run, most bytes of a label, and most queues of one installation. The server enforces them too:
#: ``records/redis/lua/queues.lua``.
MOST_LABELS, LONGEST_LABEL, MOST_QUEUES = 64, 200, 10_000
# In a label that is listed with others: it would read as several, or as none.
_UNCLEAR = re.compile(r"[,\s\"']")
# The name of a backend or a scope.
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
        """Return a JSON object that :meth:`from_json` reads."""
        return {"backend": self.backend, "labels": list(self.labels), "scope": self.scope}

    @classmethod
    def from_json(cls, data: Any) -> Route:
        """Parse what :meth:`to_json` returns. Strict, because names of queues, keys and commands are built from it.

        Raises:
            Malformed: it is no route.
        """
        parsed = Fields(data, "route")
        backend, labels, scope = parsed.name("backend"), parsed.names("labels"), parsed.name("scope", "")
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
    """The queues that a worker serves. With ``every_label`` (the laptop server's worker) it takes any label set."""

    backends: frozenset[str]
    labels: frozenset[str] = frozenset()
    scope: str = ""
    every_label: bool = False

    def serves(self, route: Route) -> bool:
        """Return True if the worker serves a route.

        A run's labels must be a non-empty subset of the worker's. Runs without labels go to workers without labels.
        """
        if route.backend not in self.backends or route.scope != self.scope:
            return False
        if self.every_label:
            return True
        if not route.labels:
            return not self.labels
        return frozenset(route.labels) <= self.labels

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        return {
            "backends": sorted(self.backends),
            "labels": sorted(self.labels),
            "scope": self.scope,
            "every_label": self.every_label,
        }

    @classmethod
    def from_json(cls, data: Any) -> Offer:
        """Parse what :meth:`to_json` returns.

        Raises:
            Malformed: it is no offer.
        """
        parsed = Fields(data, "offer")
        return cls(
            backends=frozenset(parsed.names("backends")),
            labels=frozenset(parsed.names("labels", ())),
            scope=parsed.name("scope", ""),
            every_label=parsed.flag("every_label", False),
        )


def listed(labels: Iterable[str]) -> str:
    """Return labels as a sorted list for people. One with a comma, a quote or a space is quoted."""
    return ", ".join(
        json.dumps(label, ensure_ascii=False) if _UNCLEAR.search(label) else label for label in sorted(labels)
    )


def check_labels(labels: Iterable[str] | None, *, name: str = "labels") -> tuple[str, ...]:
    """Return the labels sorted and without duplicates.

    Raises:
        InvalidInput: a label is empty, unprintable or too long, there are too many, or ``labels`` is a bare string.
    """
    if labels is None:
        return ()
    if isinstance(labels, str) or not isinstance(labels, Collection | Iterable):
        raise InvalidInput(f"{name}: must be a list of strings, got {shown(labels)}; write {shown([labels])}")
    listed_labels = list(labels)
    for label in listed_labels:
        _check_label(label, name)
    distinct = tuple(sorted(set(listed_labels)))
    if len(distinct) > MOST_LABELS:
        raise InvalidInput(f"{name}: at most {MOST_LABELS}, got {len(distinct)}")
    return distinct


def _check_label(label: object, name: str) -> None:
    if not isinstance(label, str) or not label or not label.isprintable():
        raise InvalidInput(f"{name}: each must be a non-empty printable string, got {shown(label)}")
    if len(label.encode()) > LONGEST_LABEL:
        raise InvalidInput(f"{name}: each must have at most {LONGEST_LABEL} bytes, got {label[:20]!r}…")
