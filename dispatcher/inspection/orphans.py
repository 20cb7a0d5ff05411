"""Orphaned infrastructure, found and deleted on request: ``dispatcher gc``. Workers sweep by themselves.

Backends are loaded by name, as everywhere in this package.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dispatcher import registry
from dispatcher.errors import InvalidInput, Permanent, Transient
from dispatcher.records.base import Records
from dispatcher.records.runs import Runs
from dispatcher.runs.infrastructure import is_open, needs_infrastructure
from dispatcher.runs.record import Record

if TYPE_CHECKING:
    from backends.base import Backend, Found
    from dispatcher.settings import Settings

#: Seconds of age below which nothing counts as orphaned: its record may be about to be written.
MIN_AGE = 60.0

#: Seconds between two attempts to delete the same orphan.
RETRY_INTERVAL = 0.5


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """Infrastructure without a run: its backend, its handle and the reason that it counts as orphaned.

    ``deleted``: workers have deleted it with its attempt's end, and somebody keeps it.
    """

    backend: str
    infrastructure: Found
    why: str
    deleted: bool = False

    @property
    def name(self) -> str:
        """The name that people know, such as ``namespace/name``; else the handle as JSON."""
        handle = self.infrastructure.handle
        return "/".join(str(handle[part]) for part in ("namespace", "name") if part in handle) or self._key

    @property
    def _key(self) -> str:
        return json.dumps(dict(self.infrastructure.handle), sort_keys=True)


class OrphanCleanup:
    """Finds orphaned infrastructure, and deletes it.

    Args:
        records: the runs.
        settings: those with which a worker of these backends would be started.
        backends: names; empty means all that create infrastructure and can be used here.

    Raises:
        InvalidInput: a named backend can't list its infrastructure.
        MissingExtra: a named backend needs a package that isn't installed.
    """

    def __init__(self, records: Records, settings: Settings, backends: Collection[str] = ()) -> None:
        self._records = records
        self._named = frozenset(backends)
        self.skipped: dict[str, str] = {}  #: backend → why it was skipped
        self._backends = {
            name: backend
            for name in backends or registry.BACKENDS.names()
            if (backend := self._load(name, settings, backends))
        }

    @property
    def backends(self) -> Mapping[str, Backend]:
        """The backends that are searched, by name."""
        return self._backends

    def orphans(self, *, older: float = MIN_AGE) -> list[Orphan]:
        """Return infrastructure of this installation that is older than so many seconds and that no run needs; also
        what workers have deleted and somebody keeps.

        Raises:
            Permanent, Transient: the service of a named backend can't be reached.
        """
        listed = [
            (name, infrastructure)
            for name, backend in self._backends.items()
            for infrastructure in self._list(name, backend)
            if infrastructure.age >= older
        ]
        ids = list({infrastructure.run_id for _, infrastructure in listed})
        records = dict(zip(ids, self._records.runs.get_many(ids), strict=True)) if ids else {}
        orphans = (_orphan(name, infrastructure, records[infrastructure.run_id]) for name, infrastructure in listed)
        return [orphan for orphan in orphans if orphan is not None]

    def _list(self, name: str, backend: Backend) -> list[Found]:
        """Return all infrastructure of a backend; nothing of one that can't be reached and wasn't named."""
        try:
            return list(backend.orphans(self._records.instance))  # type: ignore[attr-defined]
        except (Permanent, Transient) as error:
            if name in self._named:
                raise
            self.skipped[name] = str(error)
            return []

    def end(self, orphans: Collection[Orphan], *, older: float = MIN_AGE, within: float = 60.0) -> Iterator[str]:
        """Delete those that no run needs even now. Yield for each ``gone``, or why it isn't."""
        still = {orphan.name for orphan in self.orphans(older=older)}
        until = time.monotonic() + within
        for orphan in orphans:
            if orphan.name not in still:
                yield "left alone: it is gone, or a run wants it"
                continue
            if orphan.deleted:
                yield orphan.infrastructure.kept_by
                continue
            cancel = self._backends[orphan.backend].cancel
            yield deleted(partial(cancel, orphan.infrastructure.handle, None), until)

    def close(self) -> None:
        """Close the backends."""
        for backend in self._backends.values():
            backend.close()

    def _load(self, name: str, settings: Settings, named: Collection[str]) -> Backend | None:
        try:
            kind = registry.backend(name)
            if not kind.in_process and hasattr(kind, "orphans"):
                return kind(settings)
            if name in named:
                raise InvalidInput(f"backend {name!r} can't list what it has created, so it can't be swept")
        except (ImportError, InvalidInput, Permanent) as error:
            if name in named:
                raise
            self.skipped[name] = str(error)
        return None


def deleted(ask: Callable[[], bool], until: float) -> str:
    """Ask for a deletion until it is confirmed, or until a monotonic time. Return ``gone``, or why it isn't.

    Args:
        ask: asks a backend; returns True once it is confirmed, and raises Permanent or Transient.
        until: the monotonic time, in seconds.
    """
    status = "asked to go, not confirmed yet"
    while True:
        try:
            if ask():
                return "gone"
        except Permanent as error:
            return str(error)
        except Transient as error:
            status = str(error)
        if time.monotonic() > until:
            return status
        time.sleep(RETRY_INTERVAL)


def unwanted_attempts(runs: Runs, attempts: Collection[tuple[str, int]]) -> dict[tuple[str, int], Record | None]:
    """Return those of ``attempts`` (run id, number) that no record needs, each with the record of its run."""
    ids = list({run_id for run_id, _ in attempts})
    records = dict(zip(ids, runs.get_many(ids), strict=True)) if ids else {}
    return {
        (run_id, attempt): records[run_id]
        for run_id, attempt in attempts
        if not needs_infrastructure(records[run_id], attempt)
    }


def _orphan(backend: str, infrastructure: Found, record: Record | None) -> Orphan | None:
    """Return what was found as an orphan; None if the run needs it, or workers are about to delete it."""
    attempt, kept_by = infrastructure.attempt, infrastructure.kept_by
    why = "no such run" if record is None else f"the run is {record.state}, attempt {record.attempt}"
    if not needs_infrastructure(record, attempt):
        why = f"{why}; {kept_by}" if kept_by else why
        return Orphan(backend=backend, infrastructure=infrastructure, why=why)
    if record is None or record.foreign or is_open(record, attempt) or not kept_by:
        return None
    return Orphan(backend=backend, infrastructure=infrastructure, why=f"{why}; {kept_by}", deleted=True)
