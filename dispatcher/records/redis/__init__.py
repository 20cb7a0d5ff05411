"""Records on a Redis or Valkey server, the source of truth of an installation.

redis-py is imported only when they are opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.records.base import Records
    from dispatcher.records.bell import Bell
    from dispatcher.records.redis.connection.client import Client

__all__ = ["open_redis", "stored_instance"]


def open_redis(
    url: str,
    *,
    bell: Callable[[str], Bell] | Bell | None = None,
    timeout: float = 5.0,
    clock_offset: float = 0.0,
) -> Records:
    """Return the records on a server, usable from many threads and after a fork.

    Args:
        url: of the server, in one of the forms of :mod:`dispatcher.support.urls`.
        bell: rings doorbells; or a function that returns one for the installation's id. None rings nothing.
        timeout: seconds to connect, to send, and to answer, each.
        clock_offset: seconds added to the server's clock; for tests.

    Raises:
        InvalidSettings: the URL can't be read, or the stored installation's id isn't valid.
        ServerUnavailable: the server can't be reached or refuses us.
    """
    from dispatcher.records.base import Records
    from dispatcher.records.malformed import MalformedEntries
    from dispatcher.records.redis.blobs import RedisBlobs
    from dispatcher.records.redis.connection.client import Client
    from dispatcher.records.redis.events import RedisEvents
    from dispatcher.records.redis.inbox import RedisInbox
    from dispatcher.records.redis.keys import Keys
    from dispatcher.records.redis.leases import RedisLeases
    from dispatcher.records.redis.logs import RedisLogs
    from dispatcher.records.redis.queues import RedisQueues
    from dispatcher.records.redis.rejections import RedisRejections
    from dispatcher.records.redis.runs import RedisRuns
    from dispatcher.records.redis.static import RedisStaticObjects
    from dispatcher.records.redis.users import RedisUsers
    from dispatcher.records.redis.workers import RedisWorkers

    client = Client(url, timeout=timeout)
    try:
        instance = _instance(client)
    except BaseException:
        client.close()
        raise
    keys = Keys(instance)
    rejections = RedisRejections(client, keys, clock_offset=clock_offset)
    malformed = MalformedEntries(rejections)
    events = RedisEvents(client, keys, malformed)
    runs = RedisRuns(
        client, keys, bell=bell(instance) if callable(bell) else bell, clock_offset=clock_offset, malformed=malformed
    )

    def close() -> None:
        events.close()
        client.close()

    return Records(
        instance=instance,
        runs=runs,
        blobs=RedisBlobs(client, keys),
        logs=RedisLogs(client, keys, malformed),
        events=events,
        workers=RedisWorkers(client, keys, instance=instance, clock_offset=clock_offset, malformed=malformed),
        leases=RedisLeases(client, keys, malformed),
        queues=RedisQueues(client, keys, clock_offset=clock_offset, malformed=malformed),
        inbox=RedisInbox(client, keys),
        rejections=rejections,
        users=RedisUsers(client, keys, instance=instance),
        static=RedisStaticObjects(client, keys, clock_offset=clock_offset, malformed=malformed),
        close=close,
    )


def stored_instance(url: str, *, timeout: float = 5.0) -> str:
    """Return the installation's id at a server; empty if there is none. Creates none.

    Args:
        url: of the server, in one of the forms of :mod:`dispatcher.support.urls`.
        timeout: seconds to connect, to send, and to answer, each.

    Raises:
        InvalidSettings: the URL can't be read, or the stored id isn't valid.
        ServerUnavailable: the server can't be reached or refuses us.
    """
    from dispatcher.records.redis.connection.client import Client
    from dispatcher.records.redis.keys import INSTANCE

    client = Client(url, timeout=timeout)
    try:
        stored = client.one("GET", INSTANCE)
        return "" if stored is None else _checked(client, stored)
    finally:
        client.close()


def _instance(client: Client) -> str:
    """Return the installation's id; create one if there is none."""
    from dispatcher.records.redis.keys import INSTANCE

    stored = client.one("GET", INSTANCE)  # before SET: an ACL may allow only this
    if stored is None:
        _, stored = client.many([("SET", INSTANCE, secrets.token_hex(4), "NX"), ("GET", INSTANCE)])
    return _checked(client, stored)


def _checked(client: Client, stored: bytes) -> str:
    from dispatcher.errors import InvalidSettings
    from dispatcher.records.redis.keys import INSTANCE
    from dispatcher.support.ids import is_instance

    instance = stored.decode(errors="replace")
    if not is_instance(instance):
        raise InvalidSettings(f"the installation's id at {client.shown} isn't valid: {INSTANCE} holds {instance!r}")
    return instance
