"""The parts of a worker's parent process, and their place in Celery: one boot step and four signals.

The step gives Celery's worker its engine before the pool forks, and starts the threads after that. A shutdown drains
with the event loop still running (:mod:`workers.shutdown_signals`).
"""

from __future__ import annotations

import gc
import logging
import multiprocessing.process
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals

from dispatcher.code.cache import BundleCache
from dispatcher.runs.attempt import family
from dispatcher.runs.place_identity import Identity
from dispatcher.runs.routing import listed
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from dispatcher.support.escaping import counted
from dispatcher.support.hangup import leave_terminal
from workers.backend_cache import BackendCache
from workers.claims import open_records
from workers.identity import new_identity, offer_of
from workers.liveness import LivenessFile
from workers.notifications import NotificationListener
from workers.pool.death import Death
from workers.pool.holder_names import HolderNames
from workers.pool.interrupts import InterruptChannel
from workers.pool.journals import journals
from workers.pool.monitor import ParentProcess, PoolMonitor
from workers.pool.pool_process import Inherited, PoolProcess
from workers.pool.processes import BusyProcesses
from workers.queues import ConsumedQueues
from workers.readiness import log_ready
from workers.reconciler.loop import PeriodicSweep, Reconciler, sweeps
from workers.shutdown_signals import ShutdownSignals
from workers.ticker import Ticker

if TYPE_CHECKING:
    from workers.supervisor.manager import SupervisorManager

logger = logging.getLogger(__name__)

#: Seconds that each thread gets to end.
THREAD_TIMEOUT = 10.0

#: Python's switch interval, in seconds, where supervisors share the interpreter with Celery's event loop. At the
#: default of 5 ms, the loop would hand out messages only now and then.
SWITCH_INTERVAL = 0.0005

#: Seconds between two looks for code bundles that no process uses.
CODE_TICK = 300.0


class WorkerEngine:
    """The engine of one worker process.

    Args:
        settings: with which the worker was started.
        worker: Celery's worker.
    """

    def __init__(self, settings: Settings, worker: Any) -> None:
        self.settings = settings
        self.busy = BusyProcesses()
        self._worker = worker
        self._app = worker.app
        self._keys = keys = KeyRing.from_settings(settings)
        self._open = partial(open_records, settings, keys)
        offer = offer_of(settings.worker)
        self._backends = BackendCache(settings)
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
        self._interrupts = InterruptChannel()
        consumed = self._app.amqp.queues
        self.queues = ConsumedQueues(
            offer=offer,
            own=list(consumed.consume_from),
            pinned=consumed._consume_from is not None,
            call_soon=self._call_soon,
            consumer=lambda: worker.consumer,
            app=self._app,
        )
        main_process = multiprocessing.process.current_process()
        holder_names = HolderNames(self.identity.host)
        self.process = PoolProcess(
            Inherited(settings, keys, self.identity, self._interrupts, holder_names, self.queues.serves, main_process)
        )
        self._monitor = PoolMonitor(settings, self.identity, self.busy, self._interrupts, self._open, holder_names)
        self._monitor.parent = ParentProcess(
            pids=self._pids,
            queues=lambda: self.queues.consumed,
            stop_consuming=self.queues.stop,
            is_idle=self._is_idle,
            last_output=journals.last_output,
            leave=self._leave,
            places=self._places,
        )
        self.signals = ShutdownSignals(worker, lambda at_once: self.drain(at_once=at_once))
        self._threads = self._make_threads()

    def start(self) -> None:
        """Take over the signals and start the threads. Call after the pool has forked."""
        gc.freeze()  # as in each pool process
        self._log_start()
        self.signals.install()
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)
        signals.worker_shutting_down.connect(self._on_shutting_down, weak=False)
        for thread in self._threads:
            thread.start()

    def process_died(self, death: Death) -> None:
        """Record the death of a pool process that ran a run."""
        self._monitor.process_died(death)
        self._threads[0].wake()

    def drain(self, *, at_once: bool = False) -> None:
        """Shut down: claim nothing more, let flows run for ``drain`` seconds, then end them. Safe in a handler."""
        self._monitor.drain(at_once=at_once)
        self._threads[0].wake()

    def _make_threads(self) -> tuple[Ticker, ...]:
        """Return the threads; the monitor's is the first."""
        monitor = Ticker("monitor", self._monitor.tick, self._monitor.close)
        manager, supervisor_threads = self._make_supervisor()
        listener = NotificationListener(
            self._open,
            owner=self.identity.id,
            queues=self.queues,
            every=self.settings.timing.queue_tick,
            wake=monitor.wake,
            supervisors=manager,
        )
        reconciler = Reconciler(self._open_sweeps)
        return (
            monitor,
            Ticker("notifications", listener.tick, listener.close),
            Ticker("reconciler", reconciler.tick, reconciler.close),
            *supervisor_threads,
        )

    def _make_supervisor(self) -> tuple[SupervisorManager | None, tuple[Ticker, ...]]:
        """Return the supervisors and their threads, if a backend is served whose runs start elsewhere."""
        if not self.identity.supervises:
            return None, ()
        sys.setswitchinterval(SWITCH_INTERVAL)
        from workers.supervisor.manager import ReportListener, SupervisorManager

        manager = SupervisorManager(self.settings, self._keys, self.identity, self._backends, self._open)
        supervisor = Ticker("supervisor", manager.tick, manager.close)
        manager.wake = supervisor.wake
        listener = ReportListener(manager, self._open)
        return manager, (supervisor, Ticker("reports", listener.tick, listener.close))

    def _open_sweeps(self) -> tuple[tuple[PeriodicSweep, ...], Callable[[], None]]:
        from dispatcher.broker.doorbell import CeleryBell

        records = self._open()
        bell = CeleryBell(self.settings, records.instance)
        table = sweeps(
            records, self.settings.timing, worker=self.identity.id, serves=self.queues.serves, depth=bell.depth
        )
        table += (PeriodicSweep("code bundles", CODE_TICK, BundleCache(self._interrupts.code).trim),)

        def close() -> None:
            bell.close()
            records.close()

        return table, close

    def _call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call on Celery's event loop. Safe from any thread, but not in a signal handler."""
        self._worker.hub.call_soon(function, *arguments)

    def _pids(self) -> set[int]:
        pool = getattr(self._worker.pool, "_pool", None)
        return {process.pid for process in list(pool._pool)} if pool is not None else set()

    def _places(self) -> dict[str, Identity]:
        """Return the known identities of the places supervised, by the families of their shards."""
        backends = [self._backends(name) for name in sorted(self.identity.offer.backends)]
        return {
            family(backend.name, backend.place): backend.identity
            for backend in backends
            if not backend.in_process and backend.identity
        }

    def _is_idle(self) -> bool:
        """Return True if no message is on its way to a pool process: taken off the queue, but not yet accepted."""
        from celery.worker import state

        return self.queues.stopped and not state.reserved_requests

    def release_pool(self) -> None:
        """Let idle pool processes end at once.

        Each of them waits up to 30 s until the parent has read all of its results. A parent that stops reads no result
        of a run that Celery has forgotten, or of which it hadn't read yet that a process accepted it.
        """
        pids = {process.pid for process in self.busy.all() if not process.adopted}
        pool = getattr(self._worker.pool, "_pool", None)
        for pid, counter in list(getattr(pool, "_on_ready_counters", {}).items()):
            if pid not in pids:
                counter.value = 2**31 - 1

    def _leave(self) -> None:
        """Let Celery stop: nothing runs any more."""
        from celery.worker import state

        state.should_stop = self.signals.exit_status
        self._call_soon(lambda: None)

    def _on_ready(self, **_: Any) -> None:
        if (path := self.settings.worker.liveness_file) is not None:
            file = LivenessFile(path, self._threads)
            liveness = Ticker("liveness", file.tick, file.close)
            self._threads = (*self._threads, liveness)
            liveness.start()
        unsure = self.identity.offer.backends if self.identity.supervises else ()
        log_ready(self.identity.id, unsure, self._backends)

    def _on_shutting_down(self, how: str = "", **_: Any) -> None:
        self.drain(at_once=how == "Cold")

    def _on_shutdown(self, **_: Any) -> None:
        """End the threads: Celery has stopped, and the pool is empty."""
        leave_terminal()
        for thread in reversed(self._threads):
            thread.stop(THREAD_TIMEOUT)
        self._interrupts.close()
        logger.info("Worker %s has left", self.identity.id)

    def _log_start(self) -> None:
        offer = self.identity.offer
        labels = "any labels" if offer.every_label else listed(offer.labels) or "no labels"
        logger.info(
            "Worker %s serves %s with %s; %s; queues: %s",
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
        engine = w.app.dispatcher = WorkerEngine(w.app.dispatcher_settings, w)
        engine.signals.handle_hangup()
        signals.worker_process_init.connect(lambda **_: engine.process.begin(), weak=False)

    def start(self, w: Any) -> None:
        # A message that can't be read is gone from the broker already: reconnect instead of ending the worker.
        w.consumer.channel_errors = (*w.consumer.channel_errors, ValueError, TypeError, LookupError, AttributeError)
        w.app.dispatcher.start()

    def close(self, w: Any) -> None:
        """Drain, for whatever reason Celery stops: running flows get their time, and no more."""
        w.app.dispatcher.drain()

    def stop(self, w: Any) -> None:
        """Release the pool. The threads live until it is empty."""
        w.app.dispatcher.release_pool()

    def terminate(self, w: Any) -> None:
        w.app.dispatcher.drain(at_once=True)
