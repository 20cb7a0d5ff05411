"""The Celery application that ``celery -A workers.app``, Flower and ``python -m workers`` find; built on first use."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dispatcher.errors import ServerUnavailable
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

    app: Celery

#: Seconds between two tries to reach the server at a worker's start.
AGAIN = 2.0

_built: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    if name not in {"app", "celery"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "app" not in _built:
        _built["app"] = build(Settings.load())
    return _built["app"]


def build(settings: Settings, *, patient: bool = False) -> Celery:
    """The application, with our tasks, queues and boot step.

    Args:
        settings: name the server.
        patient: wait for the server; else a server that is away is an error.

    Raises:
        InvalidSettings: no URL is set, or it can't be read.
        ServerUnavailable: the server can't be reached; or, however patient, it refuses the user or what a worker does.
    """
    from celery import signals

    from dispatcher.broker.celery_app import make_app
    from workers import log_setup, tasks, transport
    from workers.engine import EngineStep
    from workers.identity import offer_of, own_queues
    from workers.queues import queue

    transport.install()
    own = own_queues(offer_of(settings.worker))
    app = make_app(settings, _instance(settings, own, patient=patient))
    app.dispatcher_settings = settings
    app.conf.update(
        task_queues=[queue(app, name) for name in own],
        worker_pool="workers.pool.celery_pool:Pool",
        worker_concurrency=settings.worker.concurrency,
        worker_proc_alive_timeout=60,  # a pool process may start slowly on a busy machine
    )
    app.steps["worker"].add(EngineStep)
    tasks.register(app)
    log_setup.connect(two_servers=settings.broker_url not in {None, settings.url})
    signals.celeryd_init.connect(partial(_be_a_worker, app), weak=False)
    signals.celeryd_init.connect(partial(_know_queues, app), weak=False)
    _built["app"] = app
    return app


def _instance(settings: Settings, queues: Sequence[str], *, patient: bool) -> str:
    """The installation's id, from the server; of a worker, once the server allows what it will do with its queues."""
    from dispatcher.connect import check_worker, connect

    said = False
    while True:
        try:
            records = connect(settings)
            instance = records.instance
            records.close()
            if patient:
                check_worker(settings, instance, queues)
        except ServerUnavailable as error:
            if not patient or error.denied:
                raise
            if not said:
                logging.getLogger(__name__).warning("waiting for the server: %s", error)
            said = True
            time.sleep(AGAIN)
        else:
            return instance


def _be_a_worker(app: Any, **_: Any) -> None:
    """Take messages, which Flower and ``celery inspect`` with the same application don't."""
    from dispatcher.broker.celery_app import WORKER_OVERRIDES

    transport, configuration = WORKER_OVERRIDES
    app.conf.update(**configuration, broker_transport_options={**app.conf.broker_transport_options, **transport})


def _know_queues(app: Any, *, options: dict[str, Any] | None = None, **_: Any) -> None:
    """Make the queues of ``celery worker -Q`` known before Celery looks them up."""
    from workers.queues import declare

    for name in (options or {}).get("queues") or ():
        declare(app, name)
