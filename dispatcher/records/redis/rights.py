"""Check the rights of a worker's user when the worker starts. Called by :mod:`dispatcher.connect`.

The server checks a command's rights when it is queued in a transaction. The transaction is discarded, so that none of
the commands is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import redis

from dispatcher.errors import ServerUnavailable
from dispatcher.records.redis.connection.client import Client, Command
from dispatcher.records.redis.connection.errors import unavailable
from dispatcher.records.redis.keys import INSTANCE, Keys
from dispatcher.records.redis.scripts import script
from dispatcher.support.ids import new_id
from dispatcher.support.urls import parse

#: Most refused commands that an error names.
_MOST_NAMED = 3


def check_records(url: str, instance: str, *, setting: str, timeout: float = 5.0) -> None:
    """Check that the user of ``url`` has a worker's rights on records, and load the functions if they are missing.

    Args:
        url: of the server of the records.
        instance: the installation's id.
        setting: the variable that holds the URL, for the message.
        timeout: seconds to connect, to send, and to answer, each.

    Raises:
        ServerUnavailable: the user lacks rights (then ``denied``), or the server can't be reached.
    """
    keys = Keys(instance)
    _check(url, _of_records(keys), setting=setting, timeout=timeout)
    client = Client(url, timeout=timeout)
    try:  # the heartbeat of an unknown worker changes nothing
        client.run(script("beat"), [keys.workers, keys.beats, keys.beaten], 0.0, "nobody")
    finally:
        client.close()


def check_broker(url: str, instance: str, queues: Iterable[str], *, setting: str, timeout: float = 5.0) -> None:
    """Check that the user of ``url`` may take doorbells from ``queues``, as :func:`check_records` does."""
    _check(url, _of_broker(instance, parse(url).db, list(queues)), setting=setting, timeout=timeout)


def _of_records(keys: Keys) -> list[Command]:
    """Return a worker's commands on each kind of key."""
    run_id = new_id()
    run, day = keys.run(run_id), keys.used(0)
    return [
        ("GET", INSTANCE),
        ("FCALL", script("beat").name, 1, keys.workers),
        *[("HSET", key, "f", "v") for key in (run, keys.lines(run_id), keys.blobs(run_id), day, keys.refusals)],
        *[("HSET", key, "f", "v") for key in (keys.workers, keys.leases, keys.routes)],
        ("HINCRBY", keys.beats, "f", 1),
        *[("HGETALL", key) for key in (run, keys.workers, keys.beats, keys.leases, keys.routes, day)],
        *[("XADD", key, "*", "f", "v") for key in (keys.events(run_id), keys.logs(run_id), keys.all_events)],
        *[("ZADD", key, 1, "m") for key in (keys.index("open"), keys.beaten, keys.queues, keys.passed, keys.static)],
        *[("ZRANGE", key, 0, 0) for key in (keys.index("open"), keys.beaten, keys.queues, keys.passed)],
        ("XREAD", "STREAMS", keys.inbox("local/0"), "0"),
        ("XTRIM", keys.inbox("local/0"), "MINID", "0"),
        *[("GET", key) for key in (keys.claim(run_id, 1), keys.idempotency("k"))],
        *[("DEL", key) for key in (run, keys.claim(run_id, 1), keys.idempotency("k"))],
        ("PUBLISH", keys.topic("queues"), ""),
        ("SUBSCRIBE", keys.topic("queues")),
        ("TIME",),
    ]


def _of_broker(instance: str, db: int, queues: Sequence[str]) -> list[Command]:
    """Return the commands of Celery's transport in a worker."""
    prefix = f"{instance}:"
    channels = f"{prefix}/{db}.celery.pidbox", f"{prefix}/{db}.celeryev/worker.heartbeat"
    return [
        *[("BRPOP", f"{prefix}{queue}", 1) for queue in queues],
        *[("LPUSH", f"{prefix}{queue}", "m") for queue in queues],
        ("HSET", f"{prefix}unacked", "f", "v"),
        ("ZADD", f"{prefix}unacked_index", 1, "m"),
        ("SADD", f"{prefix}_kombu.binding.celery.pidbox", "m"),
        ("SUBSCRIBE", channels[0]),
        *[("PUBLISH", channel, "") for channel in channels],
    ]


def _check(url: str, commands: list[Command], *, setting: str, timeout: float) -> None:
    client = Client(url, timeout=timeout)
    try:
        connection = client.connection()
        try:
            connection.connect()
            refused = _refused(connection, commands)
        finally:
            connection.disconnect()
    except (redis.RedisError, OSError) as error:
        failure = unavailable(error, client.shown, timeout=timeout)
        text = str(failure).replace("DISPATCHER__URL", setting)
        raise ServerUnavailable(text, denied=failure.denied) from error
    finally:
        client.close()
    if refused:
        more = f" and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
        shown = ", ".join(" ".join(map(str, command[:2])) for command in refused[:_MOST_NAMED])
        raise ServerUnavailable(
            f"{setting}: {client.shown} does not allow its user what a worker does ({shown}{more}); "
            "give the worker the user `worker` of the documentation's page on security",
            denied=True,
        )


def _refused(connection: Any, commands: list[Command]) -> list[Command]:
    """Return the ``commands`` that the connection's user has no right to."""
    if _is_refusal(_reply(connection, ("MULTI",))):
        return [("MULTI",)]  # without a transaction the commands would be executed
    refused = [command for command in commands if _is_refusal(_reply(connection, command))]
    _reply(connection, ("DISCARD",))
    return refused


def _reply(connection: Any, command: Command) -> Any:
    try:
        connection.send_command(*command)
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _is_refusal(reply: object) -> bool:
    return isinstance(reply, redis.exceptions.NoPermissionError)
