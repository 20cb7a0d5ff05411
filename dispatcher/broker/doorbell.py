"""Doorbells: kombu's envelope for a script to push, or a held producer where the broker is another server.

Only the records call this. A doorbell carries no authority: the worker that takes it reads the run's record. Celery is
imported only when something is published or counted, so a client that only submits never loads it.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dispatcher.errors import Malformed, ServerUnavailable
from dispatcher.runs.change import Ring
from dispatcher.runs.routing import Route
from dispatcher.settings import Settings
from dispatcher.support.failpoints import failpoint

if TYPE_CHECKING:
    from kombu import Connection, Producer

log = logging.getLogger(__name__)

#: One command to the broker may take 3 s here, and a connection is tried at most twice: a submit has 15 s in all.
SOCKET = {
    "socket_timeout": 3,
    "socket_connect_timeout": 3,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
}

# After a failed publish that took longer than _SLOW_FAILURE, nothing is published for _BACKOFF seconds: the reconciler
# rings again.
_SLOW_FAILURE = 1.0
_BACKOFF = 5.0

#: The most characters of a task's arguments that Celery shows.
KWARGSREPR_LIMIT = 1024

# Placeholders in a prepared envelope. Random, so that no flow's name can contain one.
_RUN, _ID, _TAG, _BODY = (uuid.uuid4().hex for _ in range(4))


class CeleryBell:
    """Rings by Celery messages; a :class:`~dispatcher.records.bell.Bell`. Safe across threads and forks.

    Args:
        settings: ``broker_url``, else ``url``, names the broker.
        instance: the installation's id.
    """

    def __init__(self, settings: Settings, instance: str) -> None:
        self._settings = settings
        self._instance = instance
        self.same_server = settings.broker_url is None or settings.broker_url == settings.url
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._held: tuple[Connection, Producer] | None = None
        self._warned = False
        self._backoff_until = 0.0

    def message(self, ring: Ring) -> tuple[str, bytes] | None:
        """Return the key of the queue's list and the message to push there; None if the broker is another server."""
        if not self.same_server:
            return None
        return f"{self._instance}:{ring.route.queue}", envelope(ring)

    def publish(self, rings: Sequence[Ring]) -> None:
        """Publish through the held producer, in few round trips. Never raises: the reconciler rings again for a lost
        doorbell."""
        started = time.monotonic()
        if self.same_server or not rings or started < self._backoff_until:
            return
        try:
            self._with_broker(lambda connection, producer: _publish(producer, rings))
        except Exception as error:  # the run is accepted, and the reconciler rings again
            if not self._warned:
                log.warning("Could not publish a doorbell (%s); the reconciler will ring again", type(error).__name__)
            self._warned = True
            if time.monotonic() - started > _SLOW_FAILURE:  # an unresponsive broker must not delay the next batch
                self._backoff_until = time.monotonic() + _BACKOFF
        else:
            self._warned = False

    def depth(self, queue: str) -> int:
        """Count the messages that wait in the broker's list of ``queue``.

        Raises:
            ServerUnavailable: the broker can't be reached.
            Malformed: the key holds something other than a list.
        """
        try:
            return int(self._with_broker(lambda connection, producer: connection.default_channel.client.llen(queue)))
        except Exception as error:
            if str(error).startswith("WRONGTYPE"):
                raise Malformed(f"queue {queue!r}: its key in the broker isn't a list") from None
            raise ServerUnavailable(f"the broker's queues can't be read: {type(error).__name__}") from error

    def close(self) -> None:
        """Close the held connection. Safe to call twice; a later doorbell opens a new one."""
        with self._lock:
            held, self._held = self._held, None
            if held is not None and self._pid == os.getpid():
                with suppress(Exception):
                    held[0].release()

    def _with_broker(self, use: Callable[[Connection, Producer], Any]) -> Any:
        """Call ``use`` with the held connection; if that had died meanwhile, once more with a fresh one."""
        if self._pid != os.getpid():  # a fork's child shares no socket and no lock with its parent
            self._lock, self._held, self._pid = threading.RLock(), None, os.getpid()
        with self._lock:
            reused = self._held is not None
            try:
                return use(*self._hold())
            except Exception:
                self.close()
                if not reused:
                    raise
                return use(*self._hold())

    def _hold(self) -> tuple[Connection, Producer]:
        if self._held is None:
            from dispatcher.broker.celery_app import make_app

            connection = make_app(self._settings, self._instance).connection_for_write(transport_options=SOCKET)
            try:
                self._held = connection, connection.Producer(serializer="json", auto_declare=False)
            except BaseException:
                connection.release()
                raise
        return self._held


def envelope(ring: Ring) -> bytes:
    """Return the message as kombu's Redis transport reads it from a list, and as ``apply_async`` would write it."""
    run_id, tag = ring.run_id, secrets.token_hex(16)
    outer, inner = _prepared(ring.task, ring.flow, ring.route)
    body = base64.b64encode(inner.replace(_RUN, run_id).encode()).decode()
    task_id = f"{run_id}-{tag[:8]}"
    return outer.replace(_BODY, body).replace(_ID, task_id).replace(_RUN, run_id).replace(_TAG, tag).encode()


@lru_cache(maxsize=1024)
def _prepared(task: str, flow: str, route: Route) -> tuple[str, str]:
    """Return envelope and body of all doorbells of one flow and route, with placeholders for what varies."""
    kwargs = kwargs_of(flow, route, _RUN)
    message = {
        "body": _BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers_of(task, _ID, kwargs),
        "properties": {
            "correlation_id": _ID,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": route.queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": _TAG,
        },
    }
    return json.dumps(message), json.dumps(body_of(kwargs))


def kwargs_of(flow: str, route: Route, run_id: str) -> dict[str, Any]:
    """Return the task's arguments: the run's id; flow, backend and labels only inform people."""
    return {"run_id": run_id, "flow": flow, "backend": route.backend, "labels": list(route.labels)}


def headers_of(task: str, task_id: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return Celery's task headers (protocol 2). Flower shows ``argsrepr`` and ``kwargsrepr``."""
    return {
        "lang": "py",
        "task": task,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": repr(kwargs)[:KWARGSREPR_LIMIT],
        "origin": _origin(os.getpid()),
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def body_of(kwargs: dict[str, Any]) -> list[Any]:
    """Return Celery's task body (protocol 2)."""
    return [[], kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]


@lru_cache(maxsize=1)
def _origin(pid: int) -> str:
    return f"gen{pid}@{socket.gethostname()}"


def _publish(producer: Producer, rings: Sequence[Ring]) -> None:
    with producer.batch(max_size=500):
        for ring in rings:
            task_id = f"{ring.run_id}-{secrets.token_hex(4)}"
            kwargs = kwargs_of(ring.flow, ring.route, ring.run_id)
            producer.publish(
                body_of(kwargs),
                exchange="",
                routing_key=ring.route.queue,
                headers=headers_of(ring.task, task_id, kwargs),
                correlation_id=task_id,
                reply_to="",
                delivery_mode=2,
                retry=False,
            )
    failpoint("bell.published", rings[-1].run_id)
