"""A flow's tasks on a Dask cluster, seen from the flow: they are given, their lines come in, and they end with it.

Made by :class:`~dispatcher.executors.dask.DaskExecutor` when it has connected; the other end is
:mod:`dispatcher.executors.dask_worker`. Imported only where Dask is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import distributed

from dispatcher.errors import InvalidInput
from dispatcher.executors import dask_worker, task_arguments
from dispatcher.executors.dask_worker import Call, Origin
from dispatcher.executors.task_log_levels import asked
from dispatcher.runs.context import around, log_limits
from dispatcher.support import signatures

logger = logging.getLogger("dispatcher.executors")

_BESIDE = 32 * 2**10  # bytes of parameters above which they travel once, not with each task
_PATIENCE = 2.0  # seconds in which tasks end that are asked to
_END = 6.0  # seconds for all that is done at the end
_MARKS = 1.0  # seconds in which the last lines arrive


class Session:
    """All that one executor gives to its cluster, from its start to its end.

    Args:
        client: a connected ``distributed.Client``.
        place: the cluster's name for people.
        shared: whether the cluster goes on after the flow.
    """

    def __init__(self, client: Any, place: str, *, shared: bool) -> None:
        self._shared = shared
        self._client = client
        self._place = place
        self._name = uuid.uuid4().hex
        self._frame = around()
        self._limits = log_limits.get()
        self._parameters: Any = None
        self._sealed: tuple[dict[str, int], bytes] | None = None
        self._lock = threading.Lock()
        self._over = False
        self._said_anything = False
        self._marks = 0
        dask_worker.here.add(self._name)
        client.subscribe_topic(client.id, self._hear)

    def give(self, fn: Any, items: Sequence[Sequence[Any]], constants: Mapping[str, Any]) -> list[Any]:
        """Have one call per item made, in one message to the scheduler; their futures.

        Raises:
            InvalidInput: an argument can't travel; names it.
        """
        name = getattr(fn, "name", None) or getattr(fn, "__name__", None) or "task"
        origin = self._origin()
        code = self._packed(fn, f"{signatures.shown_name(fn)}, given to Dask").data
        fixed = self._arguments(fn, name, {}, constants)
        packed = [self._arguments(fn, name, dict(enumerate(one)), {}) for one in items]
        calls = [Call(origin, code, one.data, fixed.data) for one in packed]
        # A key of its own gives each call a name for people, and keeps Dask from taking it for an equal one.
        keys = [f"{name}-{uuid.uuid4().hex}" for _ in items]
        many = len(calls)
        found: list[Any] = self._client.map(
            dask_worker.run, calls, [one.futures for one in packed], [fixed.futures] * many,
            [self._parameters] * many, key=keys, pure=False,
        )  # fmt: skip
        return found

    def end(self) -> None:
        """End what the flow left on the cluster, and take in the last lines.

        Waiting tasks are dropped at once. Those that run are asked to stop; the log names those that go on.
        """
        try:
            pending = [
                distributed.Future(key, client=self._client)
                for key, state in list(self._client.futures.items())
                if state.status == "pending"
            ]
            if pending or (self._shared and self._said_anything):
                self._client.sync(self._ended, pending, callback_timeout=_END)
            self._client.unsubscribe_topic(self._client.id)  # there Dask tells, too, that the client has gone
        except Exception as error:
            logger.warning(
                "the Dask cluster at %s didn't confirm within %g s that the run's tasks ended (%s)",
                self._place, _END, type(error).__name__,
            )  # fmt: skip
        finally:
            with self._lock:
                self._over = True
            dask_worker.here.discard(self._name)

    async def _ended(self, pending: list[Any]) -> None:
        client = self._client
        if pending:
            await client.cancel(pending, asynchronous=True)
            answers = await client.run(dask_worker.stop, self._name, _PATIENCE, on_error="ignore")
            await client.run(dask_worker.farewell, self._name, client.id, on_error="ignore")
            end = time.monotonic() + _MARKS
            while self._marks < len(answers) and time.monotonic() < end:
                await asyncio.sleep(0.01)
            if going := [name for names in answers.values() for name in names]:
                logger.warning(
                    "%d of the run's tasks go on at %s until they return, since they can't be interrupted: %s",
                    len(going), self._place, ", ".join(going[:10]),
                )  # fmt: skip
        if self._shared and self._said_anything:
            await client.run_on_scheduler(_forgetting(client.id))

    def _origin(self) -> bytes:
        """Sealed anew where the flow has changed levels; its parameters on the way at the first call."""
        levels = asked()
        if self._sealed is None or self._sealed[0] != levels:
            most, longest = self._limits
            frame = self._frame
            run: dict[str, Any] = {} if frame is None else {
                "run_id": frame.run_id, "attempt": frame.attempt, "flow": frame.flow, "labels": frame.labels,
                "tags": frame.tags, "inside": True,
            }  # fmt: skip
            origin = Origin(self._name, self._client.id, levels, most, longest, **run)
            self._sealed = levels, self._packed(origin, "where a task comes from").data
        if self._parameters is None:
            self._parameters = self._sent_parameters()
        return self._sealed[1]

    def _sent_parameters(self) -> Any:
        if self._frame is None:
            return b""
        try:
            data = self._packed(dict(self._frame.parameters), "the run's parameters").data
        except InvalidInput:  # said where a task asks for them
            return b""
        if len(data) <= _BESIDE:
            return data
        return self._client.submit(task_arguments.itself, data, key=f"parameters-{self._name}", pure=False)

    def _arguments(
        self, fn: Any, task: str, given: Mapping[Any, Any], named: Mapping[str, Any]
    ) -> task_arguments.Parcel:
        value = dict(named) if named or not given else list(given.values())
        try:
            return self._packed(value, f"task {task!r}: its arguments")
        except InvalidInput:
            for place, one in [*given.items(), *named.items()]:  # which of them is it?
                self._packed(one, f"task {task!r}: argument {_parameter(fn, place)!r} ({type(one).__qualname__})")
            raise

    def _packed(self, value: Any, subject: str) -> task_arguments.Parcel:
        return task_arguments.packed(value, subject=subject, remote=self._is_remote, local=self._is_local)

    def _is_remote(self, value: Any) -> bool:
        return isinstance(value, distributed.Future) and value.client is self._client

    def _is_local(self, value: Any) -> bool:
        return isinstance(value, concurrent.futures.Future | distributed.Future)

    def _hear(self, event: Any) -> None:
        """In the client's loop: an event of the client's topic, where others and Dask itself may put theirs."""
        _, message = event
        if not isinstance(message, Mapping) or message.get("dispatcher") != self._name:
            return
        with self._lock:
            if self._over:
                return
            if message.get("end"):
                self._marks += 1
            for line in message.get("lines", ()):
                self._said_anything = True
                try:
                    _say(*line)
                except Exception:  # a stream that the flow has closed
                    logger.debug("a task's line can't be shown", exc_info=True)


def _say(stream: str, text: str, level: int | None, name: str | None) -> None:
    """Say here, where the run's lines are captured, what a task said."""
    if level is None or name is None:
        (sys.stdout if stream == "stdout" else sys.stderr).write(f"{text}\n")
        return
    record = logging.LogRecord(name, level, "", 0, "%s", (text,), None)
    logging.getLogger(None if name == "root" else name).handle(record)


def _forgetting(topic: str) -> Any:
    """For the scheduler: drop the lines of a run that has them. It may lack this package: the function goes whole."""

    def forget(dask_scheduler: Any) -> None:
        dask_scheduler._broker.truncate(topic)

    forget.__module__ = "__main__"
    return forget


def _parameter(fn: Any, place: int | str) -> int | str:
    """The name of the parameter that gets an argument given by place."""
    if isinstance(place, str):
        return place
    names = partial(inspect.signature, getattr(fn, "fn", fn))
    try:
        parameters = list(names().parameters.values())
    except (TypeError, ValueError):
        return place
    named = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return named[place] if place < len(named) else place
