"""The server's settings and state, as far as the safety of runs depends on them. For ``dispatcher doctor`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import redis

from dispatcher.errors import ServerUnavailable
from dispatcher.records.redis.connection.client import Client


@dataclass(frozen=True, kw_only=True)
class ServerHealth:
    """The state of a server. Values are None where an ACL forbids ``INFO``.

    ``memory`` and ``limit`` are in bytes; a limit of 0 means none. ``clock`` is in seconds since the epoch.
    """

    clock: float
    product: str | None = None
    version: str | None = None
    appends: bool | None = None
    append_failed: bool | None = None
    eviction: str | None = None
    memory: int | None = None
    limit: int | None = None
    primary: bool | None = None


def read_health(url: str, *, timeout: float = 5.0) -> ServerHealth:
    """Return the state of a server.

    Raises:
        InvalidSettings: the URL can't be read.
        ServerUnavailable: it can't be reached, or refuses us.
    """
    client = Client(url, timeout=timeout)
    try:
        now, info = client.call([("TIME",), ("INFO",)], once=True)
    finally:
        client.close()
    if isinstance(now, Exception):
        raise ServerUnavailable(f"{client.shown} refused the command TIME: {now}") from now
    clock = int(now[0]) + int(now[1]) / 1e6
    return ServerHealth(clock=clock) if isinstance(info, redis.RedisError) else _parse(clock, _fields(info))


def _fields(info: bytes | str) -> dict[str, str]:
    text = info.decode(errors="replace") if isinstance(info, bytes) else info
    lines = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


def _parse(clock: float, fields: Mapping[str, str]) -> ServerHealth:
    return ServerHealth(
        clock=clock,
        product="valkey" if "valkey_version" in fields else "redis",
        version=fields.get("valkey_version") or fields.get("redis_version"),
        appends=_flag(fields.get("aof_enabled"), "1"),
        append_failed=_flag(fields.get("aof_last_write_status"), "err"),
        eviction=fields.get("maxmemory_policy"),
        memory=_number(fields.get("used_memory")),
        limit=_number(fields.get("maxmemory")),
        primary=_flag(fields.get("role"), "master"),
    )


def _flag(text: str | None, yes: str) -> bool | None:
    return None if text is None else text == yes


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
