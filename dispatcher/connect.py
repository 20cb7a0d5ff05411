"""From a URL to records with their doorbell. For the client, the worker's bootstrap and the command line."""

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
    """The records at ``settings.url``, with the doorbell of ``settings.broker_url`` or of the same server.

    With ``keys``, runs whose signature holds may be acted upon through these records (:meth:`Runs.vet`).
    ``memory://`` gives new records of this process, each time; nobody rings there.

    Raises:
        InvalidSettings: no URL is set, or it can't be read.
        ServerUnavailable: the server can't be reached, or refuses us.
    """
    if settings.url is None:
        raise settings.without_url()
    if settings.url.startswith(MEMORY):
        from dispatcher.records.memory import open_memory

        return _checked(open_memory(), keys)
    for url in filter(None, (settings.url, settings.broker_url)):
        parse(url)
    from dispatcher.broker.doorbell import CeleryBell
    from dispatcher.records.redis import open_redis

    bells: list[CeleryBell] = []

    def bell(instance: str) -> CeleryBell:
        bells.append(CeleryBell(settings, instance))
        return bells[-1]

    records = open_redis(settings.url, bell=bell)

    def close() -> None:
        records.close()
        for one in bells:
            one.close()

    return _checked(replace(records, close=close), keys)


def check_worker(settings: Settings, instance: str, queues: Iterable[str]) -> None:
    """Check that the users of the settings' URLs may do what a worker does; changes nothing.

    Args:
        settings: name the server of the records, and that of the doorbells if it is another.
        instance: the installation's id.
        queues: taken from.

    Raises:
        ServerUnavailable: one may not (then ``denied``; names the setting and the remedy), or can't be reached.
    """
    from dispatcher.records.redis.rights import check_broker, check_records

    assert settings.url is not None
    check_records(settings.url, instance, setting="DISPATCHER__URL")
    broker, setting = settings.url, "DISPATCHER__URL"
    if settings.broker_url is not None:
        broker, setting = settings.broker_url, "DISPATCHER__BROKER_URL"
    check_broker(broker, instance, queues, setting=setting)


def _checked(records: Records, keys: KeyRing | None) -> Records:
    if keys is not None:
        records.runs.check, records.runs.knows = keys.check, keys.knows
    return records
