"""The Celery application of ``celery -A workers.app``, Flower and ``python -m workers``; built on first use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dispatcher.errors import ServerUnavailable
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

    app: Celery

#: Seconds between two tries to reach the server when a worker starts.
RETRY_INTERVAL = 2.0

_built: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    if name not in {"app", "celery"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "app" not in _built:
        _built["app"] = build(Settings.load())
    return _built["app"]


def build(settings: Settings, *, patient: bool = False) -> Celery:
    """Build the application, with the tasks, queues and boot step of a worker.

    Args:
        settings: with the server's URL.
        patient: wait for the server; otherwise, a server that is unavailable is an error.

    Raises:
        InvalidSettings: no URL is set, or it can't be read.
        ServerUnavailable: the server can't be reached; or, even if ``patient``, it refuses the user or a command that a
            worker needs.
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
    signals.celeryd_init.connect(partial(_configure_worker, app), weak=False)
    signals.celeryd_init.connect(partial(_declare_queues, app), weak=False)
    _built["app"] = app
    return app


def _instance(settings: Settings, queues: Sequence[str], *, patient: bool) -> str:
    """Read the installation's id from the server; for a worker, also check that the server allows what it will do."""
    from dispatcher.connect import check_worker, connect
    from workers.outage import outage

    waited = False
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
            outage.begin("start", error)
            waited = True
            time.sleep(RETRY_INTERVAL)
        else:
            if waited:
                outage.end("start")
            return instance


def _configure_worker(app: Any, **_: Any) -> None:
    """Configure the application to consume messages, which Flower and ``celery inspect`` must not do with it."""
    from dispatcher.broker.celery_app import WORKER_OVERRIDES

    transport, configuration = WORKER_OVERRIDES
    app.conf.update(**configuration, broker_transport_options={**app.conf.broker_transport_options, **transport})


def _declare_queues(app: Any, *, options: dict[str, Any] | None = None, **_: Any) -> None:
    """Declare the queues of ``celery worker -Q`` before Celery looks them up."""
    from workers.queues import declare

    for name in (options or {}).get("queues") or ():
        declare(app, name)
