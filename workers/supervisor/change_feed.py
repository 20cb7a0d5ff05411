"""Changes of infrastructure that a backend reports, matched with the runs that are supervised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from backends.base import Backend, Handle, Watched
from dispatcher.records.base import Records
from dispatcher.runs.states import HELD
from workers.error_isolation import ErrorIsolation
from workers.supervisor.notices import Notices
from workers.supervisor.record_cache import RecordCache
from workers.supervisor.shards import Shards
from workers.supervisor.unmatched import UnmatchedChanges

logger = logging.getLogger(__name__)


class ChangeFeed:
    """The changes of one backend. All but :attr:`notices` is for the supervisor's thread alone.

    A change is the key of a handle; None stands for all handles.

    Args:
        records: of the runs.
        backend: reports changes, if it can.
        cache: the records as last read.
        shards: those held.
        family: of the shards.
        wake: called from any thread after a change.
    """

    def __init__(
        self,
        records: Records,
        backend: Backend,
        cache: RecordCache,
        shards: Shards,
        family: str,
        wake: Callable[[], None],
    ) -> None:
        self._runs = records.runs
        self._key = backend.key if isinstance(backend, Watched) else None
        self._cache = cache
        self._shards = shards
        self._run_ids: dict[str, str] = {}  # key of a handle → its run
        self._unmatched = UnmatchedChanges(family)
        self._isolation = ErrorIsolation(logger)
        self.notices = Notices(wake)
        if isinstance(backend, Watched):
            try:
                backend.watch(self.notices.infrastructure_changed, records.instance)
            except Exception:
                logger.exception("Backend %s can't watch; its runs are only polled", backend.name)

    @property
    def has_unmatched(self) -> bool:
        """Return True if there are changes that match no known run yet."""
        return bool(self._unmatched)

    def index(self, handles: Iterable[tuple[str, Handle]]) -> None:
        """Replace the known handles by these, each given with its run's id."""
        self._run_ids = {}
        for run_id, handle in handles:
            self._add(run_id, handle)

    def _add(self, run_id: str, handle: Handle) -> None:
        if self._key is not None:
            with self._isolation.run(run_id):
                self._run_ids[self._key(handle)] = run_id

    def take(self) -> set[str | None]:
        """Take the changes since the last time whose handle is known; the others are remembered for a while."""
        changes = self.notices.take_changes()
        self._unmatched.add(
            {key: run_id for key, run_id in changes.items() if key is not None and key not in self._run_ids},
            self._shards.held,
        )
        return {key for key in changes if key is None or key in self._run_ids}

    def put_back_all(self) -> None:
        """Report again that everything has changed."""
        self.notices.infrastructure_changed(None, "")

    def match(self) -> set[str]:
        """Read the runs of unmatched changes, at most every so often; take the changes whose handle is known by now."""
        ids = list(self._unmatched.due())
        held, settled = self._shards.held, set()
        for run_id, record in zip(ids, self._runs.get_many(ids) if ids else (), strict=True):
            if record is None or record.state not in HELD or record.handle is not None:
                settled.add(run_id)  # no handle is about to be stored
            if record is not None and record.owner in held:
                self._cache.put(record)
                if (cached := self._cache.get(record.id)) is not None and cached.handle is not None:
                    self._add(cached.id, cached.handle)
        return self._unmatched.match(self._run_ids, settled)

    def run_ids(self, changes: Iterable[str | None]) -> set[str]:
        """Return the ids of the runs that these changes concern."""
        return {self._run_ids[key] for key in changes if key is not None and key in self._run_ids}
