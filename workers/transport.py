"""The worker's transport of doorbells: nothing of a message reaches Celery but what a doorbell may say.

Whoever may push to a queue may push anything. A message is bounded before it is parsed, and made anew of its task and
of what it tells of the run, each checked: a compression, a time limit, an ETA, callbacks, chains, another serializer or
another task isn't passed on. What is no doorbell is dropped and counted; a run whose doorbell it was is rung for again.

Kombu finds the transports here by the schemes of its URLs; see :func:`install`.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Mapping
from queue import Empty
from threading import Lock
from typing import Any

from kombu import compression
from kombu import transport as transports
from kombu.transport import redis

from dispatcher.broker.doorbell import body_of, headers_of, kwargs_of
from dispatcher.errors import Malformed
from dispatcher.runs.change import CALL_ON_EXIT, EXECUTE
from dispatcher.runs.routing import Route
from dispatcher.support.ids import is_run_id
from dispatcher.support.log_throttle import LogThrottle
from dispatcher.support.parsing import Fields, bounded, read_json

logger = logging.getLogger(__name__)

#: Most bytes of a message. A doorbell has about 1,000.
MOST = 2**20

TASKS = frozenset({EXECUTE, CALL_ON_EXIT})


class Dropped:
    """Messages that were dropped: counted on Celery's event loop, taken by a thread that may wait for the server."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0
        self._seldom = LogThrottle(logger)

    def note(self, error: object) -> None:
        """One was dropped."""
        with self._lock:
            self._count += 1
            self._seldom.warn("a message that is no doorbell was dropped", error)

    def take(self) -> int:
        """Return how many there were since the last time."""
        with self._lock:
            count, self._count = self._count, 0
            return count


dropped = Dropped()


def install() -> None:
    """Have this process' connections use the transports here, and decompress nothing. Safe to call twice."""
    for scheme in ("redis", "rediss"):
        transports.TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
    transports.TRANSPORT_ALIASES["sentinel"] = f"{__name__}:SentinelTransport"
    for scheme in ("redis", "rediss", "sentinel"):
        transports._transport_cache.pop(scheme, None)
    compression._decoders.clear()


def doorbell(message: Any, queue: str) -> dict[str, Any]:
    """The message of a doorbell, made anew.

    Args:
        message: as it was parsed.
        queue: from which it was taken.

    Raises:
        Malformed: it is no doorbell.
    """
    outer = Fields(message, "message")
    headers = Fields(outer.object("headers"), "message: headers")
    properties = Fields(outer.object("properties"), "message: properties")
    task, task_id = headers.name("task"), headers.name("id")
    if task not in TASKS:
        raise Malformed("message: its task isn't one of ours")
    if headers.data.get("compression") or outer.get("content-type") != "application/json":
        raise Malformed("message: isn't plain JSON")
    told = _told(_raw(outer, properties))
    inner = json.dumps(body_of(told)).encode()
    made = headers_of(task, task_id if task_id.isprintable() else told["run_id"], told)
    origin = headers.data.get("origin")
    if isinstance(origin, str) and origin.isprintable() and len(origin) <= 200:
        made["origin"] = origin
    return {
        "body": base64.b64encode(inner).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": made,
        "properties": {
            "correlation_id": made["id"],
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": made["id"],
        },
    }


def remark(message: Any) -> Any:
    """A message of Celery's remote control, within bounds.

    Raises:
        Malformed: Celery couldn't take it.
    """
    outer = Fields(message, "message")
    properties = Fields(outer.object("properties"), "message: properties")
    properties.text("delivery_tag")
    properties.object("delivery_info")
    headers = outer.optional_object("headers") or {}
    if headers.get("compression"):
        raise Malformed("message: is compressed")
    bounded(_raw(outer, properties), "message", MOST)
    return message


def _raw(outer: Fields, properties: Fields) -> bytes:
    """The body's bytes."""
    body = outer.text("body", most=2 * MOST)
    if properties.get("body_encoding", None) is None:
        return body.encode(errors="surrogatepass")
    if properties.get("body_encoding") != "base64":
        raise Malformed("message: body_encoding must be base64")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("message: its body isn't base64") from None


def _told(raw: bytes) -> dict[str, Any]:
    """Return what a body tells of a run."""
    body = read_json(raw, "message", most=MOST)
    if not isinstance(body, list) or len(body) < 2 or body[0]:
        raise Malformed("message: its body must be a task's arguments, by name")
    told = Fields(body[1], "message: arguments")
    run_id = told.name("run_id")
    if not is_run_id(run_id):
        raise Malformed("message: run_id can't be one")
    route = Route(told.name("backend", ""), told.names("labels", ()))
    return kwargs_of(told.name("flow", ""), route, run_id)


def _within_bounds(reply: Any, **_: Any) -> Any:
    """A reply to BRPOP; in the place of a message that is too much to parse, one that says nothing."""
    if not reply:
        return None
    key, message = reply
    try:
        bounded(message, "message", MOST)
    except Malformed:
        return key, b""
    return key, message


class Doorbells:
    """The channels of this module, where they differ from kombu's."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous=asynchronous)  # type: ignore[misc]
        client.set_response_callback("BRPOP", _within_bounds)
        return client

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except ValueError:  # also what isn't UTF-8
            dropped.note("message: isn't JSON, or is too long or too deep")
            return True

    def _receive_one(self, client: Any) -> Any:
        try:
            return super()._receive_one(client)  # type: ignore[misc]
        except RecursionError:
            dropped.note("message of the remote control: is too deep")
            raise Empty from None


class Checked:
    """The transports of this module, where they differ from kombu's."""

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            made: Mapping[str, Any] = remark(message) if _is_celery_s_own(queue) else doorbell(message, queue)
        except Malformed as error:
            dropped.note(error)
            return
        super()._deliver(made, queue)  # type: ignore[misc]


def _is_celery_s_own(queue: str) -> bool:
    return queue.endswith("celery.pidbox") or queue.startswith("celeryev")


class Channel(Doorbells, redis.Channel):  # type: ignore[misc]
    """A channel over Redis."""


class SentinelChannel(Doorbells, redis.SentinelChannel):  # type: ignore[misc]
    """A channel over what Sentinels name."""


class Transport(Checked, redis.Transport):  # type: ignore[misc]
    """Kombu's transport over Redis."""

    Channel = Channel


class SentinelTransport(Checked, redis.SentinelTransport):  # type: ignore[misc]
    """Kombu's transport over what Sentinels name."""

    Channel = SentinelChannel
