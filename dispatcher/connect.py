"""Connects settings to records with their doorbell. Used by the client, the worker's bootstrap and the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from dispatcher.records.base import Records
from dispatcher.settings import Settings
from dispatcher.support.urls import MEMORY, parse

if TYPE_CHECKING:
    from dispatcher.serialization.signing_keys import KeyRing


def connect(settings: Settings, keys: KeyRing | None = None) -> Records:
    """Return the records at ``settings.url``, with a doorbell at ``settings.broker_url`` or at the same server.

    With ``keys``, runs whose signature holds may be acted upon through these records (:meth:`Runs.vet`).
    ``memory://`` gives new records of this process each time, without a doorbell.

    Raises:
        InvalidSettings: no URL is set, or it can't be parsed.
        ServerUnavailable: the server can't be reached, or refuses the connection.
    """
    if settings.url is None:
        raise settings.without_url()
    if settings.url.startswith(MEMORY):
        from dispatcher.records.memory import open_memory

        return _with_keys(open_memory(), keys)
    for url in filter(None, (settings.url, settings.broker_url)):
        parse(url)
    from dispatcher.broker.doorbell import CeleryBell
    from dispatcher.records.redis import open_redis

    bells: list[CeleryBell] = []

    def make_bell(instance: str) -> CeleryBell:
        bells.append(CeleryBell(settings, instance))
        return bells[-1]

    records = open_redis(settings.url, bell=make_bell)

    def close() -> None:
        records.close()
        for bell in bells:
            bell.close()

    return _with_keys(replace(records, close=close), keys)


def stored_instance(settings: Settings) -> str | None:
    """Return the id of the installation at ``settings.url``; empty if there is none, None for ``memory://``. Creates
    none.

    Raises:
        InvalidSettings: no URL is set, or it can't be parsed.
        ServerUnavailable: the server can't be reached, or refuses the connection.
    """
    from dispatcher.records import redis

    if settings.url is None:
        raise settings.without_url()
    return None if settings.url.startswith(MEMORY) else redis.stored_instance(settings.url)


def check_worker(settings: Settings, instance: str, queues: Iterable[str]) -> None:
    """Check that the Redis users of the settings' URLs may do what a worker does. Changes nothing.

    Args:
        settings: name the server of the records, and that of the doorbells if it is another.
        instance: the installation's id.
        queues: the names of the queues that the worker serves.

    Raises:
        ServerUnavailable: a user may not (``denied`` is True; names the setting and the remedy), or a server can't be
            reached.
    """
    from dispatcher.records.redis.rights import check_broker, check_records

    assert settings.url is not None
    check_records(settings.url, instance, setting="DISPATCHER__URL")
    broker, setting = settings.url, "DISPATCHER__URL"
    if settings.broker_url is not None:
        broker, setting = settings.broker_url, "DISPATCHER__BROKER_URL"
    check_broker(broker, instance, queues, setting=setting)


def _with_keys(records: Records, keys: KeyRing | None) -> Records:
    if keys is not None:
        records.runs.check, records.runs.knows = keys.check, keys.knows
    return records
