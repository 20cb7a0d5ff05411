"""Infrastructure that no run wants: found and ended by hand, for ``dispatcher gc``. Workers sweep by themselves.

Backends are reached by name, as everywhere in this package.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher import registry
from dispatcher.errors import InvalidInput, Permanent, Transient
from dispatcher.records.base import Records
from dispatcher.records.runs import Runs
from dispatcher.runs.infrastructure import needs_infrastructure
from dispatcher.runs.record import Record

if TYPE_CHECKING:
    from backends.base import Backend, Found
    from dispatcher.settings import Settings

#: Seconds of age below which nothing is an orphan: its record may be about to be written.
GRACE = 60.0

#: Seconds between two times to ask whether something is gone.
PAUSE = 0.5


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """Infrastructure that nobody wants: where it is, what names it, and why it isn't wanted."""

    backend: str
    found: Found
    why: str

    @property
    def name(self) -> str:
        """The name by which people know it."""
        handle = self.found.handle
        return "/".join(str(handle[part]) for part in ("namespace", "name") if part in handle) or self._key

    @property
    def _key(self) -> str:
        return json.dumps(dict(self.found.handle), sort_keys=True)


class Sweep:
    """One look for orphans, and their end.

    Args:
        records: what is wanted.
        settings: with which a worker of these backends would be started.
        backends: names; empty means all that create infrastructure and can be used here.

    Raises:
        InvalidInput: a backend that was named can't list what it has created.
        MissingExtra: one that was named needs a package that isn't installed.
    """

    def __init__(self, records: Records, settings: Settings, backends: Collection[str] = ()) -> None:
        self._records = records
        self._named = frozenset(backends)
        self.skipped: dict[str, str] = {}  #: backend → why it wasn't asked
        self._backends = {name: made for name in backends or _names() if (made := self._made(name, settings, backends))}

    def orphans(self, *, older: float = GRACE) -> list[Orphan]:
        """Return what carries our instance id, is older than so many seconds, and is wanted by no record.

        Raises:
            Permanent, Transient: the service of a backend that was named can't be asked.
        """
        found = [
            (name, one) for name, made in self._backends.items() for one in self._of(name, made) if one.age >= older
        ]
        unwanted = unwanted_attempts(self._records.runs, {(one.run_id, one.attempt) for _, one in found})
        return [
            Orphan(backend=name, found=one, why=_why(unwanted[one.run_id, one.attempt]))
            for name, one in found
            if (one.run_id, one.attempt) in unwanted
        ]

    def _of(self, name: str, made: Backend) -> list[Found]:
        """Return all that a backend has created; of one that can't be asked and wasn't named, nothing."""
        try:
            return list(made.orphans(self._records.instance))  # type: ignore[attr-defined]
        except (Permanent, Transient) as error:
            if name in self._named:
                raise
            self.skipped[name] = str(error)
            return []

    def end(self, orphans: Collection[Orphan], *, older: float = GRACE, within: float = 60.0) -> Iterator[str]:
        """End those that are still wanted by nobody; one word on each: ``gone``, or why not."""
        still = {one.name for one in self.orphans(older=older)}
        until = time.monotonic() + within
        for one in orphans:
            yield self._ended(one, until) if one.name in still else "left alone: it is gone, or a run wants it"

    def close(self) -> None:
        """Close the backends."""
        for made in self._backends.values():
            made.close()

    def _ended(self, one: Orphan, until: float) -> str:
        said = "asked to go, not confirmed yet"
        while True:
            try:
                if self._backends[one.backend].cancel(one.found.handle, None):
                    return "gone"
            except Permanent as error:
                return str(error)
            except Transient as error:
                said = str(error)
            if time.monotonic() > until:
                return said
            time.sleep(PAUSE)

    def _made(self, name: str, settings: Settings, named: Collection[str]) -> Backend | None:
        try:
            kind = registry.backend(name)
            if not kind.in_process and hasattr(kind, "orphans"):
                return kind(settings)
            if name in named:
                raise InvalidInput(f"backend {name!r} can't list what it has created, so that nothing of it is swept")
        except (ImportError, InvalidInput, Permanent) as error:
            if name in named:
                raise
            self.skipped[name] = str(error)
        return None


def unwanted_attempts(runs: Runs, attempts: Collection[tuple[str, int]]) -> dict[tuple[str, int], Record | None]:
    """Return those of ``attempts`` (run id, number) that no record wants, each with the record of its run."""
    ids = list({run_id for run_id, _ in attempts})
    records = dict(zip(ids, runs.get_many(ids), strict=True)) if ids else {}
    return {
        (run_id, attempt): records[run_id]
        for run_id, attempt in attempts
        if not needs_infrastructure(records[run_id], attempt)
    }


def _names() -> list[str]:
    return registry.BACKENDS.names()


def _why(record: Record | None) -> str:
    return "no such run" if record is None else f"the run is {record.state}, attempt {record.attempt}"
