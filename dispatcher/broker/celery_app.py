"""The Celery application: JSON only, no result backend, bounded sockets. For doorbells, workers and Flower.

Celery carries doorbells, and nothing else: no message lives as long as a run, none is retried, none has an ETA.
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

from dispatcher.records.redis.connection.credentials import Credentials
from dispatcher.settings import Settings
from dispatcher.support.urls import Address, parse

#: How kombu treats its sockets and unacknowledged messages; times are in seconds. Early acknowledgement and one
#: priority step: a message leaves the list once, and one BRPOP asks for each queue once. Only workers keep messages
#: until they are acknowledged, and put back what others left (:data:`AS_WORKER`).
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

#: Worker settings that hold for every worker and every client.
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
    # Who only looks (Flower, `celery inspect`) needs no right to run scripts, as kombu does for queues that expire.
    "control_queue_expires": None,
    "event_queue_expires": None,
}

#: What a worker's process has otherwise, of the transport and of the rest: Celery's own defaults.
AS_WORKER: tuple[Mapping[str, Any], Mapping[str, Any]] = (
    {"ack_emulation": True},
    {"control_queue_expires": 10.0, "event_queue_expires": 60.0},
)


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A server's address as kombu wants it; ``credentials`` are apart from its URL, which Celery shows."""

    url: str
    credentials: Credentials | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tls: Mapping[str, Any] | None = field(default=None, repr=False)


class BrokerConnection(Connection):  # type: ignore[misc]
    """kombu's connection, which tells nobody its credentials but who asks for a URL to connect with, as Flower does."""

    def as_uri(self, include_password: bool = False, mask: str = "**", **options: Any) -> str:
        """The broker's URL; credentials are in it only if asked for."""
        scheme, mark, rest = super().as_uri(include_password, "", **options).partition("://")
        rest = rest.removeprefix(":@")
        if not include_password or self.credential_provider is None:
            return f"{scheme}{mark}{rest}"
        *name, password = self.credential_provider.get_credentials()
        return f"{scheme}{mark}{quote(''.join(name), safe='')}:{quote(password, safe='')}@{rest}"

    def __eqhash__(self) -> HashedSeq:
        """Hash equal arguments alike: what is equal shares a pool of connections, and two users of one server don't."""
        return HashedSeq(*super().__eqhash__(), self.credential_provider)

    def info(self) -> dict[str, Any]:
        """Return what Celery's remote control tells of it."""
        return _without_passwords(super().info())


class _Amqp(AMQP):  # type: ignore[misc]
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
    """The Celery application of an installation.

    Args:
        settings: ``broker_url``, else ``url``, names the server.
        instance: the installation's id, the prefix of all its keys in the broker.

    Raises:
        InvalidSettings: no URL is set, or it can't be read.
    """
    url = settings.broker_url or settings.url
    if url is None:
        raise settings.without_url()
    broker = broker_of(url)
    app = Celery("dispatcher", set_as_current=False, amqp=_Amqp)
    app.broker_credentials = broker.credentials
    app.conf.update(
        **CONFIGURATION,
        broker_url=broker.url,
        broker_read_url=broker.url,  # named, so that no CELERY_BROKER_URL of another application gets in
        broker_write_url=broker.url,
        broker_use_ssl=None if broker.tls is None else dict(broker.tls),
        broker_transport_options={**TRANSPORT, **broker.options, "global_keyprefix": f"{instance}:"},
    )
    return app


def broker_of(url: str) -> Broker:
    """The same server in kombu's words.

    Raises:
        InvalidSettings: the URL can't be read.
    """
    address = parse(url)
    tls = address.tls_options() or None
    credentials = _credentials(address.username, address.password)
    if address.scheme == "unix":
        path = quote(address.path, safe="/")
        return Broker(url=f"redis+socket://{path}?virtual_host={address.db}", credentials=credentials)
    urls = [_tcp(address, host, port) for host, port in address.hosts]
    options = _sentinel(address, tls) if address.scheme == "sentinel" else {}
    return Broker(url=";".join(urls), credentials=credentials, options=options, tls=tls)


def _tcp(address: Address, host: str, port: int) -> str:
    place = f"[{host}]" if ":" in host else host
    return f"{address.scheme}://{place}:{port}/{address.db}"


def _credentials(username: str | None, password: str | None) -> Credentials | None:
    return None if username is None and password is None else Credentials(username, password)


def _sentinel(address: Address, tls: Mapping[str, Any] | None) -> dict[str, Any]:
    """Transport options that name the service, and how to speak to the Sentinels themselves."""
    own: dict[str, Any] = {name: TRANSPORT[name] for name in ("socket_timeout", "socket_connect_timeout")}
    credentials = _credentials(*address.sentinel_credentials)
    if credentials is not None:
        own["credential_provider"] = credentials
    if tls is not None:
        own |= {"ssl": True, **tls}
    return {"master_name": address.service, "sentinel_kwargs": own}
