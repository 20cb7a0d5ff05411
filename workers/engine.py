"""All that a worker's parent process keeps, and how it hangs on Celery: one boot step and four signals.

The step gives Celery's worker its engine before the pool forks, starts the threads after it, and takes over SIGTERM,
SIGHUP, SIGINT and SIGQUIT, so that a shutdown drains with the event loop still running.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing.process
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals

from dispatcher.runs.attempt import family
from dispatcher.runs.routing import listed
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from dispatcher.support.escaping import counted
from dispatcher.support.hangup import leave_terminal, on_hangup
from workers.backend_cache import Backends
from workers.claims import open_records
from workers.identity import new_identity, offer_of
from workers.notifications import Ears
from workers.pool.holders import Holders
from workers.pool.interrupts import Notes
from workers.pool.journals import journals
from workers.pool.monitor import Keeper, Parent
from workers.pool.pool_process import Inherited, PoolProcess
from workers.pool.processes import Held
from workers.queues import Queues
from workers.reconciler.loop import Reconciler, Sweep, sweeps
from workers.ticker import Ticker

if TYPE_CHECKING:
    from workers.supervisor.manager import Supervision

logger = logging.getLogger(__name__)

#: Seconds that each thread gets to end.
GOODBYE = 10.0

#: Seconds that a thread keeps the interpreter while others wait for it, where supervisors share it with Celery's loop:
#: at Python's own 5 ms the loop hands out a message now and then only.
SWITCH = 0.0005


class Engine:
    """The engine of one worker process.

    Args:
        settings: as the worker was started with.
        worker: Celery's worker.
    """

    def __init__(self, settings: Settings, worker: Any) -> None:
        self.settings = settings
        self.held = Held()
        self._worker = worker
        self._app = worker.app
        self._keys = keys = KeyRing.from_settings(settings)
        self._open = partial(open_records, settings, keys)
        offer = offer_of(settings.worker)
        self._backends = Backends(settings)
        self.identity = new_identity(
            offer,
            concurrency=worker.concurrency,
            celery_name=worker.hostname,
            supervises=tuple(
                family(name, self._backends(name).place)
                for name in sorted(offer.backends)
                if not self._backends(name).in_process
            ),
        )
        keys.owner = f"worker {self.identity.id}"
        self._notes = Notes()
        consumed = self._app.amqp.queues
        self.queues = Queues(
            offer=offer,
            own=list(consumed.consume_from),
            pinned=consumed._consume_from is not None,
            soon=self._soon,
            consumer=lambda: worker.consumer,
            app=self._app,
        )
        main = multiprocessing.process.current_process()
        holders = Holders(self.identity.host)
        serves = self.queues.serves
        self.process = PoolProcess(Inherited(settings, keys, self.identity, self._notes, holders, serves, main))
        self._keeper = Keeper(settings, self.identity, self.held, self._notes, self._open, holders)
        self._keeper.parent = Parent(
            pids=self._pids,
            queues=lambda: self.queues.consumed,
            stop_consuming=self.queues.stop,
            idle=self._idle,
            said=journals.left,
            leave=self._leave,
        )
        self._exit_status = 0
        self._interrupts = 0
        self._threads = self._make_threads()

    def hear_hangup(self) -> None:
        """Before Celery takes the signals: drain at SIGHUP. Celery would start again where there is no terminal."""
        self._worker._isatty = True  # all that Celery reads of it: whether SIGHUP is to be left alone
        on_hangup(self._on_sigterm)

    def start(self) -> None:
        """After the pool has forked: take over the signals and start the threads."""
        gc.freeze()  # as in each pool process
        self._log_start()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.signal(signal.SIGQUIT, self._on_sigquit)
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)
        signals.worker_shutting_down.connect(self._on_shutting_down, weak=False)
        for thread in self._threads:
            thread.start()

    def died(self, death: Any) -> None:
        """A pool process died while it ran a run."""
        self._keeper.died(death)
        self._threads[0].wake()

    def drain(self, *, at_once: bool = False) -> None:
        """Shut down: claim nothing more, let flows run for ``drain`` seconds, then end them. Safe in a handler."""
        self._keeper.drain(at_once=at_once)
        self._threads[0].wake()

    def _make_threads(self) -> tuple[Ticker, ...]:
        timing = self.settings.timing
        keeper = Ticker("keeper", self._keeper.tick, self._keeper.close)
        supervision, supervisors = self._supervisor()
        ears = Ears(
            self._open,
            owner=self.identity.id,
            queues=self.queues,
            every=timing.queue_tick,
            wake=keeper.wake,
            supervision=supervision,
        )
        reconciler = Reconciler(self._open_table)
        return (
            keeper,
            Ticker("ears", ears.tick, ears.close),
            Ticker("reconciler", reconciler.tick, reconciler.close),
            *supervisors,
        )

    def _supervisor(self) -> tuple[Supervision | None, tuple[Ticker, ...]]:
        """Only where a backend is served whose runs start elsewhere."""
        if not self.identity.supervises:
            return None, ()
        sys.setswitchinterval(SWITCH)
        from workers.supervisor.manager import Ear, Supervision

        supervision = Supervision(self.settings, self._keys, self.identity, self._backends, self._open)
        supervisor = Ticker("supervisor", supervision.tick, supervision.close)
        supervision.wake = supervisor.wake
        ear = Ear(supervision, self._open)
        return supervision, (supervisor, Ticker("reports", ear.tick, ear.close))

    def _open_table(self) -> tuple[tuple[Sweep, ...], Callable[[], None]]:
        from dispatcher.broker.doorbell import CeleryBell

        records = self._open()
        bell = CeleryBell(self.settings, records.instance)
        table = sweeps(
            records, self.settings.timing, worker=self.identity.id, serves=self.queues.serves, depth=bell.depth
        )

        def close() -> None:
            bell.close()
            records.close()

        return table, close

    def _soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call on Celery's event loop, from any thread; never from a signal handler."""
        self._worker.hub.call_soon(function, *arguments)

    def _pids(self) -> set[int]:
        pool = getattr(self._worker.pool, "_pool", None)
        return {process.pid for process in list(pool._pool)} if pool is not None else set()

    def _idle(self) -> bool:
        """Return True if nothing is on its way to a pool process: read off the queue, but not yet taken by a
        process."""
        from celery.worker import state

        return self.queues.stopped and not state.reserved_requests

    def release_pool(self) -> None:
        """Let idle pool processes go at once.

        Each waits up to 30 s for the parent to have read all of its results; a parent that stops reads none of a run
        that Celery had forgotten, over a lost connection or because it had not heard yet that a process took it.
        """
        known = {holding.pid for holding in self.held.all() if not holding.adopted}
        pool = getattr(self._worker.pool, "_pool", None)
        for pid, counter in list(getattr(pool, "_on_ready_counters", {}).items()):
            if pid not in known:
                counter.value = 2**31 - 1

    def _leave(self) -> None:
        """Nothing runs any more: let Celery stop."""
        from celery.worker import state

        state.should_stop = self._exit_status
        self._soon(lambda: None)

    def _on_sigterm(self, signum: int, frame: object) -> None:
        self.drain()

    def _on_sigint(self, signum: int, frame: object) -> None:
        """As in Celery: the first one drains, the second one ends running flows, the third one is a cold shutdown."""
        self._interrupts += 1
        if self._interrupts > 1:
            from celery.apps.worker import install_worker_term_hard_handler

            install_worker_term_hard_handler(self._worker, sig="SIGINT", verbose=False)
            self._exit_status = 1
        self.drain(at_once=self._interrupts > 1)

    def _on_sigquit(self, signum: int, frame: object) -> None:
        """Celery would wait for the pool without an end."""
        self._exit_status = 1
        self.drain(at_once=True)

    def _on_ready(self, **_: Any) -> None:
        if not self.identity.supervises:
            self._say_ready()
            return
        threading.Thread(target=self._say_ready, name="dispatcher-ready", daemon=True).start()  # it asks clusters first

    def _say_ready(self) -> None:
        """Say that it is ready, and where its runs can't go yet."""
        served = sorted(self.identity.offer.backends) if self.identity.supervises else ()
        troubles = {name: self._trouble(name) for name in served}
        told = "; ".join(f"{name} can't be reached: {why}" for name, why in troubles.items() if why)
        if told:
            logger.warning("worker %s is ready, but %s (its runs wait)", self.identity.id, told)
        else:
            logger.info("worker %s is ready", self.identity.id)

    def _trouble(self, backend: str) -> str:
        try:
            return self._backends(backend).unreachable()
        except Exception as error:  # a plugin's; that the worker is ready is said all the same
            return f"{type(error).__name__}: {error}"

    def _on_shutting_down(self, how: str = "", **_: Any) -> None:
        self.drain(at_once=how == "Cold")

    def _on_shutdown(self, **_: Any) -> None:
        """Celery has stopped, the pool is empty."""
        leave_terminal()
        for thread in reversed(self._threads):
            thread.stop(GOODBYE)
        self._notes.close()
        logger.info("worker %s has left", self.identity.id)

    def _log_start(self) -> None:
        offer = self.identity.offer
        labels = "any labels" if offer.every_label else listed(offer.labels) or "no labels"
        logger.info(
            "worker %s serves %s with %s; %s; queues: %s",
            self.identity.id,
            ", ".join(sorted(offer.backends)),
            labels,
            counted(self.identity.concurrency, "process", "processes"),
            ", ".join(self.queues.consumed),
        )


class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Gives Celery's worker its engine."""

    requires = ("celery.worker.components:Pool",)

    def create(self, w: Any) -> None:
        engine = w.app.dispatcher = Engine(w.app.dispatcher_settings, w)
        engine.hear_hangup()
        signals.worker_process_init.connect(lambda **_: engine.process.begin(), weak=False)

    def start(self, w: Any) -> None:
        # A message that can't be read is gone from the broker already: go on with a new connection, don't end.
        w.consumer.channel_errors = (*w.consumer.channel_errors, ValueError, TypeError, LookupError, AttributeError)
        w.app.dispatcher.start()

    def close(self, w: Any) -> None:
        """However Celery came to stop: flows that still run get their time, and no more."""
        w.app.dispatcher.drain()

    def stop(self, w: Any) -> None:
        """The threads live until the pool is empty."""
        w.app.dispatcher.release_pool()

    def terminate(self, w: Any) -> None:
        w.app.dispatcher.drain(at_once=True)
