"""The one place that rings: kombu's envelope for a script to push, or a held producer where the broker is elsewhere.

Called by the records alone. A ring is worth nothing by itself: who takes it reads the run's record. Celery is imported
only when something is published or counted; a client that only submits never pays for it.
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

#: One command to the broker may take 3 s here, and connecting is tried twice at most: a submit has 15 s in all.
SOCKET = {
    "socket_timeout": 3,
    "socket_connect_timeout": 3,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0,
    "interval_max": 0,
}

# After a publish that failed so slowly, nothing is published for so many seconds: the reconciler rings again.
_SLOW = 1.0
_REST = 5.0

#: Celery shows at most so many characters of a task's arguments.
SHOWN = 1024

# Places in a prepared envelope. Random, so that no flow's name can hold one.
_RUN, _ID, _TAG, _BODY = (uuid.uuid4().hex for _ in range(4))


class CeleryBell:
    """Rings by Celery messages; a :class:`~dispatcher.records.bell.Bell`. Safe across threads and forks.

    Args:
        settings: say where the broker is.
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
        self._resting_until = 0.0

    def message(self, ring: Ring) -> tuple[str, bytes] | None:
        """Key of the queue's list and the message to push there; None where the broker is another server."""
        if not self.same_server:
            return None
        return f"{self._instance}:{ring.route.queue}", envelope(ring)

    def publish(self, rings: Sequence[Ring]) -> None:
        """Publish through the held producer, all in few round trips. Never raises: a lost ring is rung again."""
        begun = time.monotonic()
        if self.same_server or not rings or begun < self._resting_until:
            return
        try:
            self._with_broker(lambda connection, producer: _publish(producer, rings))
        except Exception as error:  # the run is accepted, and the reconciler rings again
            if not self._warned:
                log.warning("a doorbell could not be published, it will be rung again: %s", type(error).__name__)
            self._warned = True
            if time.monotonic() - begun > _SLOW:  # a broker that swallows everything holds up no further portion
                self._resting_until = time.monotonic() + _REST
        else:
            self._warned = False

    def depth(self, queue: str) -> int:
        """Count the messages that wait in the broker's list of ``queue``.

        Raises:
            ServerUnavailable: the broker can't be reached.
            Malformed: there is something else in the place of the list.
        """
        try:
            return int(self._with_broker(lambda connection, producer: connection.default_channel.client.llen(queue)))
        except Exception as error:
            if str(error).startswith("WRONGTYPE"):
                raise Malformed("a queue's list is something else") from None
            raise ServerUnavailable(f"the broker can't be asked for its queues: {type(error).__name__}") from error

    def close(self) -> None:
        """Close the held connection. Safe to call twice; a later ring opens it again."""
        with self._lock:
            held, self._held = self._held, None
            if held is not None and self._pid == os.getpid():
                with suppress(Exception):
                    held[0].release()

    def _with_broker(self, use: Callable[[Connection, Producer], Any]) -> Any:
        """Use the held connection, and once more a fresh one where the held one had died meanwhile."""
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
    """The message that kombu's Redis transport takes from a list, as ``apply_async`` makes it."""
    run_id, tag = ring.run_id, secrets.token_hex(16)
    outer, inner = _prepared(ring.task, ring.flow, ring.route)
    body = base64.b64encode(inner.replace(_RUN, run_id).encode()).decode()
    task_id = f"{run_id}-{tag[:8]}"
    return outer.replace(_BODY, body).replace(_ID, task_id).replace(_RUN, run_id).replace(_TAG, tag).encode()


@lru_cache(maxsize=1024)
def _prepared(task: str, flow: str, route: Route) -> tuple[str, str]:
    """Envelope and body of all rings of one flow and route, with places for what varies."""
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
    """The task's arguments: the run, and for people's eyes its flow, backend and labels."""
    return {"run_id": run_id, "flow": flow, "backend": route.backend, "labels": list(route.labels)}


def headers_of(task: str, task_id: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Celery's task headers (protocol 2); Flower shows ``argsrepr`` and ``kwargsrepr``."""
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
        "kwargsrepr": repr(kwargs)[:SHOWN],
        "origin": _origin(os.getpid()),
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def body_of(kwargs: dict[str, Any]) -> list[Any]:
    """Celery's task body (protocol 2)."""
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
