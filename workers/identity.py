"""The identity of a worker: its id, its offer, and the information that it registers with."""

from __future__ import annotations

import os
import platform
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.place_identity import Identity as PlaceIdentity
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.spec import FEATURES
from dispatcher.settings import WorkerSettings


@dataclass(frozen=True)
class Identity:
    """Identity of a worker process. ``id`` is new at each start."""

    id: str
    host: str
    pid: int
    offer: Offer
    concurrency: int
    celery_name: str
    supervises: tuple[str, ...] = ()  #: families of the shards that it supervises with others

    def info(
        self, *, queues: tuple[str, ...], started_at: float, places: Mapping[str, PlaceIdentity] | None = None
    ) -> WorkerInfo:
        """Return the information to register; ``started_at`` is by the server's clock.

        ``places``: the identities of the places that it supervises, by the families of their shards.
        """
        return WorkerInfo(
            id=self.id,
            host=self.host,
            pid=self.pid,
            offer=self.offer,
            concurrency=self.concurrency,
            started_at=started_at,
            python=".".join(platform.python_version_tuple()[:2]),
            version=installed_version(),
            celery_name=self.celery_name,
            queues=queues,
            data={
                **({"supervises": list(self.supervises)} if self.supervises else {}),
                **({"places": {family: dict(identity) for family, identity in places.items()}} if places else {}),
                **({"knows": sorted(FEATURES)} if FEATURES else {}),
            },
        )


def new_identity(offer: Offer, *, concurrency: int, celery_name: str, supervises: tuple[str, ...] = ()) -> Identity:
    """Return an identity for this process."""
    host, pid = socket.gethostname(), os.getpid()
    return Identity(f"{host}-{pid}-{secrets.token_hex(4)}", host, pid, offer, concurrency, celery_name, supervises)


def offer_of(settings: WorkerSettings) -> Offer:
    """Return the offer that the settings describe."""
    return Offer(
        backends=settings.backends, labels=settings.labels, scope=settings.scope, every_label=settings.every_label
    )


def own_queues(offer: Offer) -> list[str]:
    """Return the queues that a worker consumes even if nobody has used them: its full label set on each backend."""
    labels = () if offer.every_label else tuple(sorted(offer.labels))
    return [Route(backend, labels, offer.scope).queue for backend in sorted(offer.backends)]


@cache
def installed_version() -> str:
    """Return the installed version of this package; empty if it isn't installed."""
    try:
        return version("flow-dispatcher")
    except PackageNotFoundError:
        return ""
