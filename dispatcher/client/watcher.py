"""Waits for the ends of runs on one thread per client, and calls users' callbacks on another.

Level-triggered: a wait subscribes first and reads then. A notice says that a record is worth reading, or holds all that
reading would give. Records are read again every few seconds and after a lost connection. Runs of this process, whose
ends are announced anyway, need no reading (:mod:`dispatcher.client.early_ends`). Used by ``Run``, ``wait`` and
``as_completed``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice

from dispatcher.client.due_runs import advance_due
from dispatcher.client.early_ends import EarlyEnds
from dispatcher.client.hooks import Callback, Hook, Hooks
from dispatcher.client.pending import PendingRuns, Waiting
from dispatcher.client.topics import Topics
from dispatcher.errors import DispatcherError, Malformed, UnknownRun
from dispatcher.inspection.deadlocks import Lookout
from dispatcher.records.base import Records
from dispatcher.records.events import Listener, is_ends
from dispatcher.runs.events import EventKind
from dispatcher.runs.record import Record

log = logging.getLogger(__name__)

#: Seconds between two polls of the runs waited for, and how many records one of them reads.
POLL_INTERVAL = 5.0
PAGE_SIZE = 500

#: Seconds until the next poll after a notice of an end that can't be read.
EARLY_POLL = 0.5


class Watcher:
    """The waits and callbacks of a client for the runs of one installation."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()  # guards what follows; held while topics change, so that changes keep order
        self._pending = PendingRuns()
        self._hooks = Hooks()
        self._ends = EarlyEnds()
        self._topics: Topics | None = None
        self._threads: dict[str, threading.Thread] = {}
        self._closed = threading.Event()
        self._poll_early = False
        self._position = 0  # of the next page among the runs to poll

    def waiting(self, run_ids: Sequence[str], records: Iterable[Record | None] = ()) -> Waiting:
        """Return a wait for these runs, of some of which there are records; enter it."""
        return Waiting(run_ids, records, add=self._add, remove=self._remove)

    def _add(self, waiting: Waiting) -> None:
        """Subscribe, then read: futures of runs that have ended already are done at once."""
        self._renew()
        with self._lock:
            self._listening().watch_ends(waiting.run_ids)
            self._pending.add(waiting, Lookout.here(self._records))
            unsure = [run_id for run_id in waiting.run_ids if not self._ends.will_be_announced(run_id)]
            ends = {run_id: self._ends.take(run_id) for run_id in unsure}
        self._read([run_id for run_id, fields in ends.items() if not (fields and self._complete_early(run_id, fields))])

    def _remove(self, waiting: Waiting) -> None:
        """Forget a wait."""
        with self._lock:
            self._pending.remove(waiting)
            self._drop(waiting.run_ids)

    def hook(self, run_id: str, kind: EventKind, callback: Callback) -> None:
        """Call ``callback(event)`` on the callback thread for each event of that kind, past ones included."""
        self._renew()
        with self._lock:
            self._start("dispatcher-callbacks", self._hooks.serve)
            self._listening().watch([run_id])
            self._hooks.add(Hook(run_id, kind, callback))
        self._catch_up([run_id])

    def close(self) -> None:
        """Stop both threads, after the calls that are queued. Waits that are left fail."""
        with self._lock:
            self._closed.set()
            left = self._pending.clear()
            self._hooks.stop()
            topics, self._topics = self._topics, None
            threads = [] if self._pid != os.getpid() else list(self._threads.values())
        if topics is not None and threads:
            topics.listener.close()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=POLL_INTERVAL)
        for future in left:
            _fail(future, DispatcherError("the Dispatcher was closed while this run was waited for; the run goes on"))

    def _renew(self) -> None:
        if self._pid != os.getpid():  # a forked child has none of its parent's threads, and maybe a held lock
            self._reset()

    def _listening(self) -> Topics:
        """Return the topics of a listener whose notices are read. Call with the lock held."""
        if self._closed.is_set():
            raise DispatcherError("the Dispatcher was closed")
        if self._topics is None:
            listener = self._records.events.listen(self._complete)
            self._topics = Topics(listener, self._ends, self._pending, self._hooks)
        self._start("dispatcher-listener", partial(self._listen, self._topics.listener))
        return self._topics

    def _drop(self, run_ids: Iterable[str]) -> None:
        if self._topics is not None:
            self._topics.drop(run_ids)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = self._threads.get(name)
        if thread is None or not thread.is_alive():
            self._threads[name] = threading.Thread(target=target, name=name, daemon=True)
            self._threads[name].start()

    def _listen(self, listener: Listener) -> None:
        next_poll, last_poll = time.monotonic() + POLL_INTERVAL, -POLL_INTERVAL
        unread: dict[str, None] = {}
        while not self._closed.is_set():
            try:
                timeout = 1.0 if unread else next_poll - time.monotonic()
                unread.update(dict.fromkeys(self._receive(listener, timeout)))
                if self._poll_early:
                    self._poll_early = False
                    next_poll = min(next_poll, max(time.monotonic() + EARLY_POLL, last_poll + POLL_INTERVAL / 2))
                if time.monotonic() >= next_poll:
                    last_poll = time.monotonic()
                    next_poll = last_poll + POLL_INTERVAL
                    self._poll()
                if unread:
                    self._read(list(unread))
                    self._catch_up(list(unread))
                    unread.clear()
            except DispatcherError as error:
                log.debug("Waiting for the ends of runs failed; retrying: %s", error)
                self._closed.wait(0.5)
            except Exception:
                if not self._closed.is_set():
                    log.exception("Waiting for the ends of runs failed; retrying")
                    self._closed.wait(1.0)

    def _receive(self, listener: Listener, timeout: float) -> list[str]:
        """Return the runs worth reading, by all notices that have arrived, a page at most.

        These are runs that have ended, and those whose notice can't be read; after a lost connection all.
        """
        run_ids: list[str] = []
        wait = max(0.0, timeout)
        for _ in range(PAGE_SIZE):
            if (notice := listener.get(wait)) is None:
                break
            topic, event = notice
            wait = 0.0
            if event is not None:
                with self._lock:
                    self._hooks.offer([event])
                    if event.final:
                        self._ends.keep(event.run_id, {})
                if event.final:
                    run_ids.append(event.run_id)
            elif not topic:
                with self._lock:
                    if self._ends.subscribed:
                        self._ends.joined_topic()
                    run_ids += [*self._pending.futures, *self._hooks.by_run]
            elif is_ends(topic):
                self._poll_early = True
            else:
                run_ids.append(topic)
        return list(dict.fromkeys(run_ids))

    def _complete_early(self, run_id: str, fields: Mapping[str, bytes]) -> bool:
        """Complete the futures of a run from an earlier notice. Return True if that was possible."""
        try:
            return self._complete(run_id, fields)
        except Malformed as error:
            log.debug("The notice of the end of run %s can't be read; reading its record: %s", run_id, error)
            return False

    def _complete(self, run_id: str, fields: Mapping[str, bytes]) -> bool:
        """Complete the futures of a run from the notice of its end and its earlier record.

        Return True if that was possible. Called on the listener's thread, so it does nothing while another thread holds
        the lock: that one may be waiting for the listener.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            hooked = run_id in self._hooks.by_run
            if not hooked and run_id not in self._pending.futures:
                self._ends.keep(run_id, fields)
                return True
            if hooked or (earlier := self._pending.records.get(run_id)) is None:
                return False
            record = earlier.later(fields)
            if not record.terminal:
                return False
            futures = self._pending.pop([run_id])[run_id]
            self._ends.keep(run_id, {})
            self._drop([run_id])
        finally:
            self._lock.release()
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_result(record)
        return True

    def _read(self, run_ids: Sequence[str]) -> None:
        """Read the records of those that are pending, and complete the futures of ended ones."""
        with self._lock:
            pending = [run_id for run_id in dict.fromkeys(run_ids) if run_id in self._pending.futures]
        for start in range(0, len(pending), PAGE_SIZE):
            page = pending[start : start + PAGE_SIZE]
            self._complete_read(page, self._records.runs.get_many(page))

    def _complete_read(self, run_ids: Sequence[str], records: Sequence[Record | None]) -> None:
        """Complete the futures of runs that have ended, and leave their topics in one command."""
        pairs = zip(run_ids, records, strict=True)
        ended = {run_id: record for run_id, record in pairs if record is None or record.terminal}
        with self._lock:
            futures = self._pending.pop(ended)
            for run_id in ended:
                self._ends.keep(run_id, {})
        for run_id, record in ended.items():
            for future in futures[run_id]:
                if record is None:
                    _fail(future, UnknownRun(f"no run {run_id}: there is none, or its retention is over"))
                elif future.set_running_or_notify_cancel():
                    future.set_result(record)
        with self._lock:  # last: waiters come first
            self._drop(ended)

    def _catch_up(self, run_ids: Sequence[str]) -> None:
        """Offer all events of the runs that have hooks, and remove the hooks of ended runs."""
        with self._lock:
            hooked = [run_id for run_id in dict.fromkeys(run_ids) if run_id in self._hooks.by_run]
        for run_id in hooked:
            try:
                events = self._records.events.of(run_id)[0]
            except Malformed as error:  # this run's callbacks are lost, but no other run is delayed
                log.debug("The events of run %s can't be read: %s", run_id, error)
                events = []
            with self._lock:
                self._hooks.offer(events)
                self._hooks.prune(run_id)
                self._drop([run_id])

    def _poll(self) -> None:
        """Read the next page of runs whatever was announced.

        Where no worker lives, do what the clock alone does. Tell flows that wait for a run that can't start.
        """
        page = self._next_page()
        self._catch_up(page)
        records = self._records.runs.get_many(page) if page else []
        self._complete_read(page, records)
        advance_due(self._records, records)
        with self._lock:
            lookouts = self._pending.lookouts()
        for lookout, run_ids in lookouts:
            lookout.look(run_ids)
        with self._lock:
            if self._topics is not None:
                self._topics.drop_idle()

    def _next_page(self) -> list[str]:
        """Return the next runs to poll: all take turns, a page at a time."""
        with self._lock:
            run_ids = [*self._pending.futures, *self._hooks.by_run]
        start = 0 if self._position >= len(run_ids) else self._position
        self._position = start + PAGE_SIZE
        return list(islice(run_ids, start, start + PAGE_SIZE))


def _fail(future: Future[Record], error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
