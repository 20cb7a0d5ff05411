"""Hears how runs end, on one thread per client, and calls people's callbacks on another.

Level-triggered: whoever begins to wait watches first and reads then; a notice says that a record is worth reading, or
tells all that reading would; after a lost connection, and every few seconds, records are read again. Runs of this
process, whose ends are heard anyway, need no reading (:mod:`dispatcher.client.early_ends`). Used by ``Run``, ``wait``
and ``as_completed``.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice

from dispatcher.client.due_runs import advance
from dispatcher.client.early_ends import Ends
from dispatcher.client.hooks import Callback, Hook
from dispatcher.errors import DispatcherError, Malformed, UnknownRun
from dispatcher.inspection.deadlocks import Lookout
from dispatcher.records.base import Records
from dispatcher.records.events import Listener, is_ends
from dispatcher.runs.events import Event, Kind
from dispatcher.runs.record import Record

log = logging.getLogger(__name__)

#: Seconds between two readings of what is waited for, notice or not, and how many records one of them reads.
LOOK = 5.0
PAGE = 500

#: Looks without a wait after which the ends of this process's runs aren't listened to any more, and seconds until the
#: next look where a notice of an end can't be read.
IDLE = 6
SOON = 0.5


class Waiting:
    """A wait for runs to end, as futures of their terminal records, in the order of ``run_ids``.

    A future fails with UnknownRun where there is no such run. Enter before use; leaving, twice or from another thread
    as well, ends the wait. Of ``known`` runs there are earlier records: their last needs no reading.
    """

    def __init__(self, watcher: Watcher, run_ids: Sequence[str], known: Iterable[Record | None] = ()) -> None:
        self._watcher = watcher
        self.known = [record for record in known if record is not None]
        self._lock = threading.Lock()
        self._begun = self._left = False
        self.run_ids = tuple(run_ids)
        self.futures: tuple[Future[Record], ...] = tuple(Future() for _ in run_ids)

    def __enter__(self) -> Waiting:
        with self._lock:
            if self._left:
                return self
            self._begun = True
        try:
            self._watcher.add(self)
        except BaseException:
            self.leave()
            raise
        if self._left:  # meanwhile, by another thread
            self._watcher.remove(self)
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
        self._watcher.remove(self)


class Watcher:
    """Hears of the runs of one installation."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()  # guards what follows; held over watch and unwatch, so that they keep order
        self._waits: dict[str, list[Future[Record]]] = {}
        self._known: dict[str, Record] = {}  # of those waited for
        self._hooks: dict[str, list[Hook]] = {}
        self._lookouts: dict[Waiting, Lookout] = {}  # of waits that flows began
        self._ends = Ends()
        self._idle = 0  # looks since this process's runs were last waited for
        self._soon = False  # whether the next look comes early
        self._listener: Listener | None = None
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._threads: dict[str, threading.Thread] = {}
        self._closed = threading.Event()
        self._position = 0

    def waiting(self, run_ids: Sequence[str], known: Iterable[Record | None] = ()) -> Waiting:
        """A wait for these runs, of some of which there are records; enter it."""
        return Waiting(self, run_ids, known)

    def add(self, waiting: Waiting) -> None:
        """Watch, then read: what ended before is done at once."""
        self._renew()
        with self._lock:
            self._watch_ends(waiting.run_ids)
            for run_id, future in zip(waiting.run_ids, waiting.futures, strict=True):
                self._waits.setdefault(run_id, []).append(future)
            self._known |= {record.id: record for record in waiting.known}
            if (lookout := Lookout.here(self._records)) is not None:
                self._lookouts[waiting] = lookout
            worth = [run_id for run_id in waiting.run_ids if not self._ends.will_be_heard(run_id)]
            told = {run_id: self._ends.take(run_id) for run_id in worth}
        self._read([run_id for run_id, end in told.items() if not (end and self._answered(run_id, end))])

    def remove(self, waiting: Waiting) -> None:
        """Forget a wait."""
        mine = {id(future) for future in waiting.futures}
        with self._lock:
            self._lookouts.pop(waiting, None)
            for run_id in set(waiting.run_ids) & self._waits.keys():
                left = [future for future in self._waits[run_id] if id(future) not in mine]
                if left:
                    self._waits[run_id] = left
                else:
                    del self._waits[run_id]
                    self._known.pop(run_id, None)
            self._unwatch(waiting.run_ids)

    def hook(self, run_id: str, kind: Kind, call: Callback) -> None:
        """Call ``call(event)`` for each such event of the run, those that happened included, on the callback thread."""
        hook = Hook(run_id, kind, call)
        self._renew()
        with self._lock:
            self._start("dispatcher-callbacks", self._serve_calls)
            self._watch([run_id])
            self._hooks.setdefault(run_id, []).append(hook)
        self._catch_up([run_id])

    def close(self) -> None:
        """Stop both threads, after the calls that are due; waits that are left fail."""
        with self._lock:
            self._closed.set()
            left = [future for futures in self._waits.values() for future in futures]
            self._waits.clear()
            self._known.clear()
            self._hooks.clear()
            self._lookouts.clear()
            listener, self._listener = self._listener, None
            threads = [] if self._pid != os.getpid() else list(self._threads.values())
        if listener is not None and threads:
            listener.close()
        self._calls.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=LOOK)
        for future in left:
            _fail(future, DispatcherError("the Dispatcher was closed while this run was waited for; the run goes on"))

    def _renew(self) -> None:
        if self._pid != os.getpid():  # a fork's child has none of its parent's threads, and maybe a held lock
            self._reset()

    def _watch_ends(self, run_ids: Sequence[str]) -> None:
        """Hear of the ends of these runs: of this process's by one topic, of each other by its own."""
        self._idle = 0
        topics = [one for one in dict.fromkeys(run_ids) if one not in self._waits and not self._ends.is_ours(one)]
        if not self._ends.are_heard and any(map(self._ends.is_ours, run_ids)):
            self._watch([*topics, self._ends.topic])
            self._ends.begin()
        else:
            self._watch(topics)

    def _watch(self, topics: Sequence[str]) -> None:
        if self._closed.is_set():
            raise DispatcherError("the Dispatcher was closed")
        if self._listener is None:
            self._listener = self._records.events.listen(self._ended)
        self._start("dispatcher-listener", partial(self._listen, self._listener))
        if topics:
            self._listener.watch(topics)

    def _unwatch(self, run_ids: Iterable[str]) -> None:
        runs = [one for one in dict.fromkeys(run_ids) if one not in self._hooks]
        self._leave([one for one in runs if one not in self._waits or self._ends.is_ours(one)])

    def _leave(self, gone: Sequence[str]) -> None:
        if gone and self._listener is not None and not self._closed.is_set():
            try:
                self._listener.unwatch(gone)
            except DispatcherError:
                log.debug("could not leave %d topics", len(gone))

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = self._threads.get(name)
        if thread is None or not thread.is_alive():
            self._threads[name] = threading.Thread(target=target, name=name, daemon=True)
            self._threads[name].start()

    def _listen(self, listener: Listener) -> None:
        look, last = time.monotonic() + LOOK, -LOOK
        unread: dict[str, None] = {}
        while not self._closed.is_set():
            try:
                unread.update(dict.fromkeys(self._heard(listener, 1.0 if unread else look - time.monotonic())))
                if self._soon:
                    self._soon, look = False, min(look, max(time.monotonic() + SOON, last + LOOK / 2))
                if time.monotonic() >= look:
                    last = time.monotonic()
                    look = last + LOOK
                    self._look()
                    self._look_out()
                    self._rest()
                if unread:
                    self._read(list(unread))
                    self._catch_up(list(unread))
                    unread.clear()
            except DispatcherError as error:
                log.debug("listening: %s", error)
                self._closed.wait(0.5)
            except Exception:
                if not self._closed.is_set():
                    log.exception("listening for the ends of runs failed; it goes on")
                    self._closed.wait(1.0)

    def _heard(self, listener: Listener, timeout: float) -> list[str]:
        """Runs worth reading: those that ended, or of which something unreadable was told, by as many notices as are
        there, and a page of them at most; all, after a lost connection."""
        worth: list[str] = []
        wait = max(0.0, timeout)
        for _ in range(PAGE):
            if (notice := listener.get(wait)) is None:
                break
            topic, event = notice
            wait = 0.0
            if event is not None:
                self._offer([event])
                if event.final:
                    worth.append(event.run_id)
                    with self._lock:
                        self._ends.keep(event.run_id, {})
            elif not topic:
                with self._lock:
                    if self._ends.are_heard:
                        self._ends.begin()
                    worth += [*self._waits, *self._hooks]
            elif is_ends(topic):
                self._soon = True
            else:
                worth.append(topic)
        return list(dict.fromkeys(worth))

    def _answered(self, run_id: str, told: Mapping[str, bytes]) -> bool:
        """Answer for a run by what was told of its end before; whether that could be done."""
        try:
            return self._ended(run_id, told)
        except Malformed as error:
            log.debug("what was told of the end of run %s can't be read: %s", run_id, error)
            return False

    def _ended(self, run_id: str, told: Mapping[str, bytes]) -> bool:
        """Answer for a run whose earlier record is known, on the listener's thread; whether that could be done.

        Not while somebody holds the lock: who does may wait for the listener.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if run_id not in self._waits and run_id not in self._hooks:
                self._ends.keep(run_id, told)
                return True
            if run_id in self._hooks or (known := self._known.get(run_id)) is None:
                return False
            record = known.later(told)
            if not record.terminal:
                return False
            futures = self._forget([run_id])[run_id]
            self._ends.keep(run_id, {})
            self._unwatch([run_id])
        finally:
            self._lock.release()
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_result(record)
        return True

    def _forget(self, run_ids: Iterable[str]) -> dict[str, list[Future[Record]]]:
        """Remove runs that have ended, and return who waits for them. Called under the lock."""
        found = {}
        for run_id in run_ids:
            found[run_id] = self._waits.pop(run_id, [])
            self._known.pop(run_id, None)
        return found

    def _offer(self, events: Sequence[Event]) -> None:
        with self._lock:
            for event in events:
                for hook in self._hooks.get(event.run_id, []):
                    hook.offer(event, self._calls)

    def _page(self) -> list[str]:
        """The next runs to read again, notice or not: all in turn, so many at a time."""
        with self._lock:
            known = [*self._waits, *self._hooks]
        start, self._position = (0, PAGE) if self._position >= len(known) else (self._position, self._position + PAGE)
        return list(islice(known, start, start + PAGE))

    def _read(self, run_ids: Sequence[str]) -> None:
        """Read the records of those waited for, and answer for the ended ones."""
        with self._lock:
            waited = [run_id for run_id in dict.fromkeys(run_ids) if run_id in self._waits]
        for start in range(0, len(waited), PAGE):
            page = waited[start : start + PAGE]
            self._answer(page, self._records.runs.get_many(page))

    def _answer(self, run_ids: Sequence[str], records: Sequence[Record | None]) -> None:
        """Answer for those that have ended, and watch them no more, all in one command."""
        found = zip(run_ids, records, strict=True)
        over = {run_id: record for run_id, record in found if record is None or record.terminal}
        with self._lock:
            futures = self._forget(over)
            for run_id in over:
                self._ends.keep(run_id, {})
        for run_id, record in over.items():
            for future in futures[run_id]:
                if record is None:
                    _fail(future, UnknownRun(f"no run {run_id}: there is none, or its retention is over"))
                elif future.set_running_or_notify_cancel():
                    future.set_result(record)
        with self._lock:  # last: who waits is told first
            self._unwatch(over)

    def _catch_up(self, run_ids: Sequence[str]) -> None:
        """Offer all events of the runs that have hooks, and drop the hooks whose run has ended."""
        with self._lock:
            hooked = [run_id for run_id in dict.fromkeys(run_ids) if run_id in self._hooks]
        for run_id in hooked:
            try:
                self._offer(self._records.events.of(run_id)[0])
            except Malformed as error:  # what stands in their place costs this run's callbacks, and delays no other run
                log.debug("the events of run %s can't be read: %s", run_id, error)
            with self._lock:
                left = [hook for hook in self._hooks.pop(run_id, []) if not hook.over]
                if left:
                    self._hooks[run_id] = left
                self._unwatch([run_id])

    def _rest(self) -> None:
        """Listen to the ends of this process's runs no longer, after a while in which nobody has waited for one."""
        with self._lock:
            self._idle = 0 if any(map(self._ends.is_ours, self._waits)) else self._idle + 1
            if self._ends.are_heard and self._idle >= IDLE:
                self._leave([self._ends.topic])
                self._ends.stop()

    def _look_out(self) -> None:
        """For each flow that waits: whether what it waits for can start."""
        with self._lock:
            waits = [
                (lookout, [one for one in waiting.run_ids if one in self._waits])
                for waiting, lookout in self._lookouts.items()
            ]
        for lookout, run_ids in waits:
            lookout.look(run_ids)

    def _look(self) -> None:
        """Read the next page again. Where no worker lives, do what the clock alone does."""
        page = self._page()
        self._catch_up(page)
        records = self._records.runs.get_many(page) if page else []
        self._answer(page, records)
        advance(self._records, records)

    def _serve_calls(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception:
                log.exception("a callback of a run raised")


def _fail(future: Future[Record], error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
