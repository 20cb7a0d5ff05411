"""The Celery application: JSON only, no result backend, bounded sockets. Used for doorbells, workers and Flower.

Celery carries only doorbells: no message lives as long as a run, none is retried, none has an ETA.
:mod:`dispatcher.broker.doorbell` publishes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection
from kombu.utils.collections import HashedSeq

from dispatcher.records.redis.connection.credentials import RedisCredentials
from dispatcher.settings import Settings
from dispatcher.support.urls import Address, parse

#: Transport options of kombu: sockets and unacknowledged messages; times in seconds. With early acknowledgement and one
#: priority step, a message leaves the list once, and one BRPOP names each queue once. Only workers keep messages until
#: they are acknowledged, and restore those of dead workers (:data:`WORKER_OVERRIDES`).
TRANSPORT: Mapping[str, Any] = {
    "ack_emulation": False,
    "visibility_timeout": 300,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "priority_steps": [0],
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}

#: Celery settings of every worker and every client.
CONFIGURATION: Mapping[str, Any] = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    "event_serializer": "json",
    "task_ignore_result": True,
    "result_backend": None,
    "task_acks_late": False,
    "task_default_queue": "dispatcher",
    "task_create_missing_queues": False,
    "task_publish_retry": False,
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    "broker_connection_timeout": 5,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    "worker_enable_remote_control": True,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    # kombu runs a script for queues that expire. Flower and `celery inspect` must work without the right to do so.
    "control_queue_expires": None,
    "event_queue_expires": None,
}

#: Overrides in a worker's process, of :data:`TRANSPORT` and of :data:`CONFIGURATION`: Celery's own defaults.
WORKER_OVERRIDES: tuple[Mapping[str, Any], Mapping[str, Any]] = (
    {"ack_emulation": True},
    {"control_queue_expires": 10.0, "event_queue_expires": 60.0},
)


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """A server's address in kombu's form. ``credentials`` aren't part of the URL, because Celery shows that."""

    url: str
    credentials: RedisCredentials | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tls: Mapping[str, Any] | None = field(default=None, repr=False)


class BrokerConnection(Connection):  # type: ignore[misc]
    """A kombu connection that shows its credentials only in a URL requested with the password, as Flower does."""

    def as_uri(self, include_password: bool = False, mask: str = "**", **options: Any) -> str:
        """Return the broker's URL, with credentials only if ``include_password`` is set."""
        scheme, mark, rest = super().as_uri(include_password, "", **options).partition("://")
        rest = rest.removeprefix(":@")
        if not include_password or self.credential_provider is None:
            return f"{scheme}{mark}{rest}"
        *name, password = self.credential_provider.get_credentials()
        return f"{scheme}{mark}{quote(''.join(name), safe='')}:{quote(password, safe='')}@{rest}"

    def __eqhash__(self) -> HashedSeq:
        """Include the credentials: kombu pools connections with equal hashes, and two users of a server must not share
        any."""
        return HashedSeq(*super().__eqhash__(), self.credential_provider)

    def info(self) -> dict[str, Any]:
        """Return the facts that Celery's remote control shows, without passwords."""
        return _without_passwords(super().info())


class _Amqp(AMQP):  # type: ignore[misc]
    """Opens connections with the application's credentials."""

    def Connection(self, *arguments: Any, **options: Any) -> BrokerConnection:  # noqa: N802 - Celery's name for it
        return BrokerConnection(*arguments, **options, credential_provider=self.app.broker_credentials)


def _without_passwords(facts: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in facts.items():
        if "password" in name:
            shown[name] = None
        else:
            shown[name] = _without_passwords(value) if isinstance(value, Mapping) else value
    return shown


def make_app(settings: Settings, instance: str) -> Celery:
    """Return the Celery application of an installation.

    Args:
        settings: ``broker_url``, else ``url``, names the server.
        instance: the installation's id, which prefixes all its keys in the broker.

    Raises:
        InvalidSettings: no URL is set, or it can't be read.
    """
    url = settings.broker_url or settings.url
    if url is None:
        raise settings.without_url()
    broker = broker_address(url)
    app = Celery("dispatcher", set_as_current=False, amqp=_Amqp)
    app.broker_credentials = broker.credentials
    app.conf.update(
        **CONFIGURATION,
        broker_url=broker.url,
        broker_read_url=broker.url,  # explicit, so that another application's CELERY_BROKER_URL can't replace them
        broker_write_url=broker.url,
        broker_use_ssl=None if broker.tls is None else dict(broker.tls),
        broker_transport_options={**TRANSPORT, **broker.options, "global_keyprefix": f"{instance}:"},
    )
    return app


def broker_address(url: str) -> BrokerAddress:
    """Convert a URL of the settings to kombu's form.

    Raises:
        InvalidSettings: the URL can't be read.
    """
    address = parse(url)
    tls = address.tls_options() or None
    credentials = _credentials(address.username, address.password)
    if address.scheme == "unix":
        path = quote(address.path, safe="/")
        return BrokerAddress(url=f"redis+socket://{path}?virtual_host={address.db}", credentials=credentials)
    urls = [_tcp(address, host, port) for host, port in address.hosts]
    options = _sentinel(address, tls) if address.scheme == "sentinel" else {}
    return BrokerAddress(url=";".join(urls), credentials=credentials, options=options, tls=tls)


def _tcp(address: Address, host: str, port: int) -> str:
    netloc = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{address.scheme}://{netloc}/{address.db}"


def _credentials(username: str | None, password: str | None) -> RedisCredentials | None:
    return None if username is None and password is None else RedisCredentials(username, password)


def _sentinel(address: Address, tls: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the transport options that name the service and configure the connections to the Sentinels themselves."""
    sentinel_kwargs: dict[str, Any] = {name: TRANSPORT[name] for name in ("socket_timeout", "socket_connect_timeout")}
    credentials = _credentials(*address.sentinel_credentials)
    if credentials is not None:
        sentinel_kwargs["credential_provider"] = credentials
    if tls is not None:
        sentinel_kwargs |= {"ssl": True, **tls}
    return {"master_name": address.service, "sentinel_kwargs": sentinel_kwargs}
