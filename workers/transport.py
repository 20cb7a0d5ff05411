"""The worker's transports of doorbells, which pass on to Celery only what a doorbell may contain.

Anybody who may push to a queue may push anything. A message is bounded before it is parsed, and built anew from its
task and its description of the run, both checked. Compression, time limits, ETAs, callbacks, chains, other serializers
and other tasks aren't passed on. A message that isn't a doorbell is dropped and counted; if it was one, the run's
doorbell will be rung again.

Kombu finds the transports by the schemes of its URLs; see :func:`install`.
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

#: The most bytes of a message. A doorbell has about 1,000.
MAX_BYTES = 2**20

TASKS = frozenset({EXECUTE, CALL_ON_EXIT})


class DroppedMessages:
    """Counter of dropped messages, incremented on Celery's event loop and read by a thread that may wait."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0
        self._throttle = LogThrottle(logger)

    def note(self, error: object) -> None:
        """Count and log a dropped message."""
        with self._lock:
            self._count += 1
            self._throttle.warn("A message that isn't a doorbell was dropped", error)

    def take(self) -> int:
        """Return the number of messages dropped since the last call."""
        with self._lock:
            count, self._count = self._count, 0
            return count


dropped = DroppedMessages()


def install() -> None:
    """Have this process's connections use these transports, and decompress nothing. Safe to call twice."""
    for scheme in ("redis", "rediss"):
        transports.TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
    transports.TRANSPORT_ALIASES["sentinel"] = f"{__name__}:SentinelTransport"
    for scheme in ("redis", "rediss", "sentinel"):
        transports._transport_cache.pop(scheme, None)
    compression._decoders.clear()


def doorbell(message: Any, queue: str) -> dict[str, Any]:
    """Build the message of a doorbell anew.

    Args:
        message: as parsed.
        queue: from which it was taken.

    Raises:
        Malformed: it isn't a doorbell.
    """
    outer = Fields(message, "message")
    headers = Fields(outer.object("headers"), "message: headers")
    properties = Fields(outer.object("properties"), "message: properties")
    task, task_id = headers.name("task"), headers.name("id")
    if task not in TASKS:
        raise Malformed("message: its task isn't one of the dispatcher's")
    if headers.data.get("compression") or outer.get("content-type") != "application/json":
        raise Malformed("message: isn't plain JSON")
    arguments = _arguments(_raw(outer, properties))
    inner = json.dumps(body_of(arguments)).encode()
    new_headers = headers_of(task, task_id if task_id.isprintable() else arguments["run_id"], arguments)
    origin = headers.data.get("origin")
    if isinstance(origin, str) and origin.isprintable() and len(origin) <= 200:
        new_headers["origin"] = origin
    return {
        "body": base64.b64encode(inner).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": new_headers,
        "properties": {
            "correlation_id": new_headers["id"],
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": new_headers["id"],
        },
    }


def control_message(message: Any) -> Any:
    """Return a message of Celery's remote control unchanged, if it is within bounds.

    Raises:
        Malformed: Celery couldn't handle it.
    """
    outer = Fields(message, "message")
    properties = Fields(outer.object("properties"), "message: properties")
    properties.text("delivery_tag")
    properties.object("delivery_info")
    headers = outer.optional_object("headers") or {}
    if headers.get("compression"):
        raise Malformed("message: is compressed")
    bounded(_raw(outer, properties), "message", MAX_BYTES)
    return message


def _raw(outer: Fields, properties: Fields) -> bytes:
    """Return the body's bytes."""
    body = outer.text("body", most=2 * MAX_BYTES)
    if properties.get("body_encoding", None) is None:
        return body.encode(errors="surrogatepass")
    if properties.get("body_encoding") != "base64":
        raise Malformed("message: body_encoding must be base64")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("message: its body isn't base64") from None


def _arguments(raw: bytes) -> dict[str, Any]:
    """Return the task's arguments from a body."""
    body = read_json(raw, "message", most=MAX_BYTES)
    if not isinstance(body, list) or len(body) < 2 or body[0]:
        raise Malformed("message: its body must be a task's arguments, by name")
    arguments = Fields(body[1], "message: arguments")
    run_id = arguments.name("run_id")
    if not is_run_id(run_id):
        raise Malformed("message: run_id can't be one")
    route = Route(arguments.name("backend", ""), arguments.names("labels", ()))
    return kwargs_of(arguments.name("flow", ""), route, run_id)


def _within_bounds(reply: Any, **_: Any) -> Any:
    """Return a reply to BRPOP, with an empty message instead of one that is too large or too deep to parse."""
    if not reply:
        return None
    key, message = reply
    try:
        bounded(message, "message", MAX_BYTES)
    except Malformed:
        return key, b""
    return key, message


class CheckedChannel:
    """Mixin of channels that drop what they can't parse."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous=asynchronous)  # type: ignore[misc]
        client.set_response_callback("BRPOP", _within_bounds)
        return client

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except ValueError:  # including what isn't UTF-8
            dropped.note("message: isn't JSON, or is too long or too deep")
            return True

    def _receive_one(self, client: Any) -> Any:
        try:
            return super()._receive_one(client)  # type: ignore[misc]
        except RecursionError:
            dropped.note("message of the remote control: is too deep")
            raise Empty from None


class CheckedTransport:
    """Mixin of transports that check each message before Celery gets it."""

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            checked: Mapping[str, Any] = (
                control_message(message) if _is_celery_queue(queue) else doorbell(message, queue)
            )
        except Malformed as error:
            dropped.note(error)
            return
        super()._deliver(checked, queue)  # type: ignore[misc]


def _is_celery_queue(queue: str) -> bool:
    return queue.endswith("celery.pidbox") or queue.startswith("celeryev")


class Channel(CheckedChannel, redis.Channel):  # type: ignore[misc]
    """Channel over Redis."""


class SentinelChannel(CheckedChannel, redis.SentinelChannel):  # type: ignore[misc]
    """Channel over the server that Sentinels name."""


class Transport(CheckedTransport, redis.Transport):  # type: ignore[misc]
    """Transport over Redis."""

    Channel = Channel


class SentinelTransport(CheckedTransport, redis.SentinelTransport):  # type: ignore[misc]
    """Transport over the server that Sentinels name."""

    Channel = SentinelChannel
