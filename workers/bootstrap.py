"""The start of a worker. Called by ``python -m workers`` and by ``dispatcher worker``."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings

from dispatcher import registry
from dispatcher.serialization import KeyRing
from dispatcher.settings import Settings
from dispatcher.support import private_files

#: Celery's warnings of users that are usual in containers: root, and one without an entry in /etc/group.
_OF_CONTAINERS = ("superuser privileges", "specified gid or egid was not found")


def run_worker(settings: Settings, *, level: int = logging.INFO) -> int:
    """Run a worker in this process until it is stopped. Return its exit status. Call in the main thread.

    Args:
        settings: with a URL and signing keys; ``settings.worker`` says what is served.
        level: of the log.

    Raises:
        InvalidSettings: no URL or no signing key is set, or they can't be read.
    """
    from workers import log_setup
    from workers.app import build
    from workers.identity import offer_of

    if settings.url is None:
        raise settings.without_url()
    if os.getpid() == 1:
        private_files.be_alone()
    KeyRing.from_settings(settings)  # so that a missing key is an error before anything is started
    for name in sorted(settings.worker.backends):
        registry.backend(name).check_settings(settings)
        registry.backend(name).preload()
    if settings.worker.runner_users:
        _check_users(settings)
    log_setup.set_up(level)
    app = build(settings, patient=True)
    _import_early()
    with warnings.catch_warnings():
        for message in _OF_CONTAINERS:
            warnings.filterwarnings("ignore", message=f".*{message}", category=Warning)
        worker = app.Worker(
            hostname=_name(sorted(offer_of(settings.worker).backends)),
            loglevel=logging.getLevelName(level),
            concurrency=settings.worker.concurrency,
            quiet=True,
            without_gossip=True,
            without_mingle=True,
        )
    worker.start()
    return int(worker.exitcode or 0)


def _check_users(settings: Settings) -> None:
    """Check that a user can be created for each attempt. An unavailable server is left to the start itself.

    Raises:
        InvalidSettings: the worker's own user may not create users.
    """
    from dispatcher.connect import connect
    from dispatcher.errors import InvalidSettings, ServerUnavailable

    with contextlib.suppress(ServerUnavailable):
        records = connect(settings)
        try:
            allowed = records.users.allowed()
        finally:
            records.close()
        if not allowed:
            raise InvalidSettings(
                "DISPATCHER__WORKER__RUNNER_USERS: the worker's own Redis user may make no users; give it "
                "+acl|setuser +acl|deluser +acl|users, or leave the setting out"
            )


def _name(backends: list[str]) -> str:
    """Return a name for Flower: the backends, a unique part, and the host (which Celery adds)."""
    import secrets

    from celery.utils.nodenames import default_nodename

    return str(default_nodename(f"{'+'.join(backends)}-{secrets.token_hex(3)}@"))


def _import_early() -> None:
    """Import what every pool process needs before the fork: saves time there, and forks during no import."""
    import importlib

    for name in ("dispatcher.records.redis", "dispatcher.runner.in_process", "dispatcher.executors", "backends.local"):
        importlib.import_module(name)
