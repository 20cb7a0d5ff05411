"""The program of a run's Dask scheduler: ``python -P -m dispatcher.executors.dask_cluster.scheduler``.

Started by :mod:`dispatcher.executors.dask_cluster.scheduler_process` as a child of the flow's process, and ended with
it. It speaks TLS alone, with the certificate that Dask's configuration names, on every interface. Its pages are served
on loopback. It takes only workers that it wants and that have its own versions.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import time
from collections.abc import Sequence
from typing import Any

import dask
import distributed
from distributed.core import Status
from distributed.versions import get_versions
from tornado.ioloop import PeriodicCallback

from dispatcher.executors.dask_cluster.adaptive import Adapting
from dispatcher.executors.dask_cluster.messages import LINES, ClusterLine, Messages
from dispatcher.executors.dask_cluster.versions import version_problem
from dispatcher.executors.dask_cluster.worker_names import WorkerNames
from dispatcher.executors.scheduler_calls import HANDLERS, IDENTITY
from dispatcher.support import private_files
from dispatcher.support.parent_death import die_with

logger = logging.getLogger("distributed.scheduler")

_BLOCKED = ("feed", "run_function")  # they run anything that a client sends
_ASKED = ("retire-workers", "worker-close-gracefully")  # beginnings of the reasons why a worker leaves as it should


class Scheduler(distributed.Scheduler):  # type: ignore[misc]
    """A scheduler with workers of its choice. Its class keeps Dask's name, by which Dask finds its configuration.

    Args:
        names: the names of its workers.
        messages: to the runner.
        options: of ``distributed.Scheduler``.
    """

    def __init__(self, names: WorkerNames, messages: Messages, **options: Any) -> None:
        configured = dask.config.get("distributed.scheduler.blocked-handlers", [])
        super().__init__(blocked_handlers=[*configured, *_BLOCKED], **options)
        self._names = names
        self._messages = messages
        self._versions = get_versions()
        self.handlers.update({name: handler(self) for name, handler in HANDLERS.items()})
        self.stream_handlers[LINES] = self._forward_lines

    def identity(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Describe this scheduler, as one that has the project's own handlers."""
        return {**super().identity(*args, **options), IDENTITY: True}

    async def add_worker(self, comm: Any, *, name: str, versions: dict[str, Any], **rest: Any) -> None:
        """Take a worker that connects, or tell it why not: it ends then."""
        if problem := self._problem(name, versions):
            logger.warning("A Dask worker was refused: %s", problem)
            await comm.write({"status": "error", "message": problem, "time": time.time()})
            return
        await super().add_worker(comm, name=name, versions=versions, **rest)

    def _problem(self, name: str, versions: dict[str, Any]) -> str:
        if name not in self._names.wanted:
            return f"worker {name!r:.100} isn't wanted, or no longer"
        problem = version_problem(name, versions, self._versions)
        if problem and not self._names.ready:
            self._messages.refuse(problem)
        return problem

    def _forward_lines(self, worker: str, lines: Sequence[Any]) -> None:
        """Send the lines of tasks to the runner. Called with a worker's address."""
        if (state := self.workers.get(worker)) is not None:
            for line in lines:
                self._messages.line(ClusterLine(str(state.name), *line))


class _Joining(distributed.SchedulerPlugin):  # type: ignore[misc]
    """Notes the workers that join and leave, and adapts at once where that can't wait."""

    name = "dispatcher-joining"

    def __init__(self, names: WorkerNames, adapting: Adapting) -> None:
        self._names = names
        self._adapting = adapting
        self._by_address: dict[str, str] = {}

    def add_worker(self, scheduler: Any, worker: str) -> None:
        name = self._by_address[worker] = str(scheduler.workers[worker].name)
        self._names.join(name)

    def remove_worker(self, scheduler: Any, worker: str, *, stimulus_id: str = "", **_more: Any) -> None:
        name = self._by_address.pop(worker, None)
        if name is None or scheduler.status is not Status.running:
            return
        asked = name in self._adapting.retiring or stimulus_id.startswith(_ASKED)
        self._names.leave(name, asked=asked)
        if not asked:
            logger.warning("Dask worker %s was lost", name)
            scheduler.loop.add_callback(self._adapting.adapt)

    def update_graph(self, scheduler: Any, **_more: Any) -> None:
        """The first tasks after a while don't wait for the next interval."""
        if not scheduler.workers:
            scheduler.loop.add_callback(self._adapting.adapt)


class _LogHandler(logging.Handler):
    """Sends the warnings of this process to the run's log and, if asked for, all records of the scheduler itself."""

    def __init__(self, messages: Messages, *, all_of_scheduler: bool) -> None:
        super().__init__()
        self._messages = messages
        self._all = all_of_scheduler

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and not (self._all and record.name.startswith("distributed.scheduler")):
            return
        try:
            for text in self.format(record).splitlines():
                self._messages.line(ClusterLine("", "log", text, record.levelno, record.name))
        except Exception:
            self.handleError(record)


async def serve(options: argparse.Namespace, messages: Messages) -> None:
    """Run the scheduler until it is closed, or this process gets SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    names = WorkerNames(options.min, messages.report)
    scheduler = Scheduler(
        names, messages, protocol="tls", port=options.port, dashboard_address=f"127.0.0.1:{options.pages_port}"
    )
    adapting = Adapting(scheduler, names, minimum=options.min, maximum=options.max)
    scheduler.add_plugin(_Joining(names, adapting))
    interval = dask.utils.parse_timedelta(dask.config.get("distributed.adaptive.interval")) * 1000
    scheduler.periodic_callbacks["dispatcher-adapting"] = PeriodicCallback(adapting.adapt, interval)
    await scheduler
    messages.report(names.report())
    ended = [asyncio.create_task(stop.wait()), asyncio.create_task(scheduler.finished())]
    await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    await scheduler.close(reason="the flow has ended")


def main() -> None:
    """Run a scheduler by this process's arguments."""
    parser = argparse.ArgumentParser()
    for name in ("min", "max", "port", "pages-port", "messages", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--scheduler-logs", action="store_true")
    options = parser.parse_args()
    die_with(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the flow
    private_files.be_alone()
    os.set_inheritable(options.messages, False)
    messages = Messages(options.messages)
    _set_logging(_LogHandler(messages, all_of_scheduler=options.scheduler_logs))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard // 2), hard))  # as `dask scheduler` does
    try:
        asyncio.run(serve(options, messages))
    finally:
        messages.close()
    os._exit(0)  # the end of the interpreter takes a while, for which the run would wait


def _set_logging(handler: logging.Handler) -> None:
    logging.getLogger("distributed").handlers[:] = [handler]  # it doesn't propagate
    logging.getLogger().addHandler(handler)
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)


if __name__ == "__main__":
    main()
