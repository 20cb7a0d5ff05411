"""Waits for runs to end, and the runs that a client waits for. Used by :mod:`dispatcher.client.watcher`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from dispatcher.inspection.deadlocks import Lookout
from dispatcher.runs.record import Record


class Waiting:
    """A wait for runs to end, as futures of their terminal records, in the order of ``run_ids``.

    A future fails with UnknownRun if there is no such run. Enter before use. Leaving ends the wait; leave twice or from
    another thread as you like. ``records`` are earlier records of some runs: their last one need not be read then.
    """

    def __init__(
        self,
        run_ids: Sequence[str],
        records: Iterable[Record | None],
        *,
        add: Callable[[Waiting], None],
        remove: Callable[[Waiting], None],
    ) -> None:
        self._add, self._remove = add, remove
        self._lock = threading.Lock()
        self._begun = self._left = False
        self.records = [record for record in records if record is not None]
        self.run_ids = tuple(run_ids)
        self.futures: tuple[Future[Record], ...] = tuple(Future() for _ in run_ids)

    def __enter__(self) -> Waiting:
        with self._lock:
            if self._left:
                return self
            self._begun = True
        try:
            self._add(self)
        except BaseException:
            self.leave()
            raise
        if self._left:  # meanwhile, by another thread
            self._remove(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()

    def leave(self) -> None:
        """End the wait."""
        with self._lock:
            if self._left:
                return
            self._left = True
            if not self._begun:
                return
        self._remove(self)


class PendingRuns:
    """The runs that are waited for: their futures, and earlier records of some. Call with the watcher's lock held."""

    def __init__(self) -> None:
        self.futures: dict[str, list[Future[Record]]] = {}
        self.records: dict[str, Record] = {}
        self._lookouts: dict[Waiting, Lookout] = {}  # of waits that flows began

    def add(self, waiting: Waiting, lookout: Lookout | None) -> None:
        """Add a wait, with the lookout of the flow that began it."""
        for run_id, future in zip(waiting.run_ids, waiting.futures, strict=True):
            self.futures.setdefault(run_id, []).append(future)
        self.records |= {record.id: record for record in waiting.records}
        if lookout is not None:
            self._lookouts[waiting] = lookout

    def remove(self, waiting: Waiting) -> None:
        """Remove a wait, and the runs for which nobody else waits."""
        removed = {id(future) for future in waiting.futures}
        self._lookouts.pop(waiting, None)
        for run_id in set(waiting.run_ids) & self.futures.keys():
            left = [future for future in self.futures[run_id] if id(future) not in removed]
            if left:
                self.futures[run_id] = left
            else:
                del self.futures[run_id]
                self.records.pop(run_id, None)

    def pop(self, run_ids: Iterable[str]) -> dict[str, list[Future[Record]]]:
        """Remove ended runs and return their futures."""
        futures = {}
        for run_id in run_ids:
            futures[run_id] = self.futures.pop(run_id, [])
            self.records.pop(run_id, None)
        return futures

    def clear(self) -> list[Future[Record]]:
        """Remove all runs and return their futures."""
        left = [future for futures in self.futures.values() for future in futures]
        self.futures.clear()
        self.records.clear()
        self._lookouts.clear()
        return left

    def lookouts(self) -> list[tuple[Lookout, list[str]]]:
        """Return the lookout of each flow that waits, with the runs that it still waits for."""
        return [
            (lookout, [run_id for run_id in waiting.run_ids if run_id in self.futures])
            for waiting, lookout in self._lookouts.items()
        ]
