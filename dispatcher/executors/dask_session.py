"""A flow's tasks on a Dask cluster, from the flow's side: they are submitted, send lines, and end with the flow.

Made by :class:`~dispatcher.executors.dask.DaskExecutor` when it has connected. The other end is
:mod:`dispatcher.executors.dask_worker`. Imported only if Dask is installed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import distributed

from dispatcher.errors import InvalidInput
from dispatcher.executors import dask_code, dask_worker, scheduler_calls, task_arguments
from dispatcher.executors.dask_bundles import Cluster, SessionBundles
from dispatcher.executors.dask_worker import TaskCall, TaskOrigin
from dispatcher.executors.received_lines import emit
from dispatcher.executors.task_log_levels import current_levels
from dispatcher.runs.context import around, log_limits
from dispatcher.serialization.pickles import modules
from dispatcher.support import signatures

logger = logging.getLogger("dispatcher.executors")

_MAX_INLINE_PARAMETERS = 32 * 2**10  # bytes; larger parameters are sent once, not with each task
_STOP_TIMEOUT = 2.0  # seconds for tasks to stop after they were asked to
_END_TIMEOUT = 6.0  # seconds for the whole end of a session
_LAST_LINES_TIMEOUT = 1.0  # seconds for the last lines to arrive


class DaskSession:
    """The tasks that one executor submits to its cluster, from its start to its end.

    Args:
        client: a connected ``distributed.Client``.
        cluster_name: the cluster's name in messages.
        shared: True if the cluster lives on after the flow.
        timeout: most seconds to wait for others that use modules of the same names.
        names_workers: show the worker's name before each line of a task.
    """

    def __init__(
        self, client: Any, cluster_name: str, *, shared: bool, timeout: float, names_workers: bool = False
    ) -> None:
        self._shared = shared
        self._names_workers = names_workers
        self._client = client
        self._cluster_name = cluster_name
        self._name = uuid.uuid4().hex
        self._frame = around()
        self._limits = log_limits.get()
        self._parameters: Any = None
        self._origin: tuple[dict[str, int], bool, bytes] | None = None
        self._lock = threading.Lock()
        self._ended = False
        self._has_lines = False
        self._end_marks = 0
        cluster = Cluster(client, cluster_name, self._name, _label(self._frame), timeout)
        self._bundles = SessionBundles(cluster)
        dask_worker.local_sessions.add(self._name)
        dask_code.flows_here.add(self._name)
        client.subscribe_topic(client.id, self._receive)

    def open_bundles(self) -> None:
        """Make the project's modules importable on the cluster. Call before the first task; :meth:`end` undoes it.

        Raises:
            ExecutorUnavailable: another session uses modules of the same names, or the cluster can't take bundles.
            InvalidInput: a module has the name of one that Dask uses.
        """
        self._bundles.open()

    def submit(self, fn: Any, items: Sequence[Sequence[Any]], constants: Mapping[str, Any]) -> list[Any]:
        """Submit one call per item, in one message to the scheduler, and return their futures.

        Raises:
            InvalidInput: an argument or the project's code can't travel; names it.
            ExecutorUnavailable: the project's code can't be imported there.
        """
        name = getattr(fn, "name", None) or getattr(fn, "__name__", None) or "task"
        code = self._pack(fn, f"{signatures.shown_name(fn)}, sent to Dask").data
        shared = self._pack_arguments(fn, name, {}, constants)
        packed = [self._pack_arguments(fn, name, dict(enumerate(arguments)), {}) for arguments in items]
        origin = self._packed_origin()
        calls = [TaskCall(origin, code, arguments.data, shared.data) for arguments in packed]
        # The keys are unique, so that Dask never merges equal calls, and show the task's name in Dask's pages.
        keys = [f"{name}-{uuid.uuid4().hex}" for _ in items]
        count = len(calls)
        futures: list[Any] = self._client.map(
            dask_worker.run, calls, [arguments.futures for arguments in packed], [shared.futures] * count,
            [self._parameters] * count, key=keys, pure=False,
        )  # fmt: skip
        return futures

    def end(self) -> None:
        """End the tasks that the flow left on the cluster, and receive the last lines.

        Waiting tasks are cancelled at once. Running tasks are asked to stop; the log names those that go on.
        """
        try:
            pending = [
                distributed.Future(key, client=self._client)
                for key, state in list(self._client.futures.items())
                if state.status == "pending"
            ]
            if pending or (self._shared and self._has_lines):
                self._client.sync(self._end_tasks, pending, callback_timeout=_END_TIMEOUT)
            self._client.unsubscribe_topic(self._client.id)  # Dask itself reports there that the client has gone
        except Exception as error:
            logger.warning(
                "The Dask cluster at %s didn't confirm within %g s that the run's tasks ended (%s)",
                self._cluster_name, _END_TIMEOUT, type(error).__name__,
            )  # fmt: skip
        finally:
            with self._lock:
                self._ended = True
            self._close_bundles()
            dask_worker.local_sessions.discard(self._name)
            dask_code.flows_here.discard(self._name)

    def _close_bundles(self) -> None:
        try:
            self._bundles.close()
        except Exception as error:  # the scheduler closes them when the client has gone
            logger.debug("The bundles on %s weren't closed: %r", self._cluster_name, error)

    async def _end_tasks(self, pending: list[Any]) -> None:
        client = self._client
        if pending:
            await client.cancel(pending, asynchronous=True)
            answers = await client.run(dask_worker.stop, self._name, _STOP_TIMEOUT, on_error="ignore")
            await client.run(dask_worker.send_end_mark, self._name, client.id, on_error="ignore")
            end = time.monotonic() + _LAST_LINES_TIMEOUT
            while self._end_marks < len(answers) and time.monotonic() < end:
                await asyncio.sleep(0.01)
            if running := [name for names in answers.values() for name in names]:
                logger.warning(
                    "%d of the run's tasks go on at %s until they return, since they can't be interrupted: %s",
                    len(running), self._cluster_name, ", ".join(running[:10]),
                )  # fmt: skip
        if self._shared and self._has_lines:
            await scheduler_calls.remove_lines(client, client.id)

    def _packed_origin(self) -> bytes:
        """Return the packed origin, and send the run's parameters at the first call.

        The origin is packed anew when the flow has changed log levels, or has opened its first bundle.
        """
        levels, has_bundles = current_levels(), bool(self._bundles)
        if self._origin is None or self._origin[:2] != (levels, has_bundles):
            max_bytes, max_line = self._limits
            frame = self._frame
            run: dict[str, Any] = {} if frame is None else {
                "run_id": frame.run_id, "attempt": frame.attempt, "flow": frame.flow, "labels": frame.labels,
                "tags": frame.tags, "inside": True,
            }  # fmt: skip
            run["has_bundles"] = has_bundles
            origin = TaskOrigin(self._name, self._client.id, levels, max_bytes, max_line, **run)
            self._origin = levels, has_bundles, self._pack(origin, "a task's origin").data
        if self._parameters is None:
            self._parameters = self._send_parameters()
        return self._origin[2]

    def _send_parameters(self) -> Any:
        """Return the packed parameters of the run, or a future of them if they are large."""
        if self._frame is None:
            return b""
        try:
            data = self._pack(dict(self._frame.parameters), "the run's parameters").data
        except InvalidInput:  # the task that asks for them gets the error
            return b""
        if len(data) <= _MAX_INLINE_PARAMETERS:
            return data
        return self._client.submit(task_arguments.identity, data, key=f"parameters-{self._name}", pure=False)

    def _pack_arguments(
        self, fn: Any, task: str, positional: Mapping[Any, Any], named: Mapping[str, Any]
    ) -> task_arguments.PackedValue:
        value = dict(named) if named or not positional else list(positional.values())
        try:
            return self._pack(value, f"task {task!r}: its arguments")
        except InvalidInput:
            for key, argument in [*positional.items(), *named.items()]:  # pack each, to name the one that fails
                self._pack(argument, signatures.argument_name(fn, key, argument))
            raise

    def _pack(self, value: Any, subject: str) -> task_arguments.PackedValue:
        packed = task_arguments.pack_value(value, subject=subject, remote=self._is_remote, local=self._is_local)
        self._bundles.cover(modules(packed.data))
        return packed

    def _is_remote(self, value: Any) -> bool:
        return isinstance(value, distributed.Future) and value.client is self._client

    def _is_local(self, value: Any) -> bool:
        return isinstance(value, concurrent.futures.Future | distributed.Future)

    def _receive(self, event: Any) -> None:
        """Handle an event of the client's topic, in the client's loop. Dask itself and others may send events, too."""
        _, message = event
        if not isinstance(message, Mapping) or message.get("dispatcher") != self._name:
            return
        with self._lock:
            if self._ended:
                return
            if message.get("end"):
                self._end_marks += 1
            for line in message.get("lines", ()):
                self._has_lines = True
                try:
                    emit(*line, worker=str(message.get("name", "")) if self._names_workers else "")
                except Exception:  # the flow may have closed the stream
                    logger.debug("A task's line can't be shown", exc_info=True)


def _label(frame: Any) -> str:
    """Name a run or, outside of one, this program."""
    if frame is None or frame.run_id is None:
        return f"process {os.getpid()} on {socket.gethostname()}"
    return f"run {frame.run_id} of flow {frame.flow!r}"
