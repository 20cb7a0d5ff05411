"""Our doorbells equal kombu's: the same envelope as apply_async's, taken by a real consumer and a real worker."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dispatcher.broker.celery_app import broker_address, make_app
from dispatcher.broker.doorbell import CeleryBell, body_of, envelope, headers_of
from dispatcher.errors import InvalidSettings, ServerUnavailable
from dispatcher.runs.change import EXECUTE, Ring
from dispatcher.runs.routing import Route
from dispatcher.settings import Settings
from tests.conftest import Server
from tests.waiting import wait_until

INSTANCE = "inst"
RING = Ring(run_id="01hxyz", task=EXECUTE, flow='wörd "count"', route=Route("local", ("eu", "gpu")))
KWARGS = {"run_id": "01hxyz", "flow": 'wörd "count"', "backend": "local", "labels": ["eu", "gpu"]}


def plain(raw: bytes) -> dict[str, Any]:
    """Return an envelope with its body parsed, without what differs from message to message."""
    message: dict[str, Any] = json.loads(raw)
    message["body"] = json.loads(base64.b64decode(message["body"]))
    task_id = message["headers"]["id"]
    assert message["headers"]["root_id"] == message["properties"]["correlation_id"] == task_id
    for name in ("id", "root_id"):
        message["headers"][name] = "ID"
    message["properties"]["correlation_id"] = "ID"
    assert message["properties"]["delivery_tag"]
    message["properties"]["delivery_tag"] = "TAG"
    message["properties"]["reply_to"] = ""  # Celery names a queue for results; ours go elsewhere
    return message


def test_envelope_is_apply_asyncs_header_by_header(server_url: str) -> None:
    app = make_app(Settings.load(url=server_url), INSTANCE)
    app.amqp.queues.add(RING.route.queue)
    with redis.Redis.from_url(server_url) as client:
        app.send_task(EXECUTE, kwargs=KWARGS, queue=RING.route.queue, ignore_result=True)
        theirs = client.rpop(f"{INSTANCE}:{RING.route.queue}")
    assert isinstance(theirs, bytes)
    assert plain(envelope(RING)) == plain(theirs)


def test_published_envelope_is_the_pushed_one(server_url: str) -> None:
    bell = CeleryBell(Settings.load(url="redis://records.invalid/0", broker_url=server_url), INSTANCE)
    assert bell.message(RING) is None
    bell.publish([RING, RING])
    assert bell.depth(RING.route.queue) == 2
    with redis.Redis.from_url(server_url) as client:
        published = client.lrange(f"{INSTANCE}:{RING.route.queue}", 0, -1)
    bell.close()
    assert [plain(raw) for raw in published] == [plain(envelope(RING))] * 2


def test_kombu_consumer_takes_a_pushed_message(server_url: str) -> None:
    bell = CeleryBell(Settings.load(url=server_url), INSTANCE)
    pushed = bell.message(RING)
    assert pushed is not None
    with redis.Redis.from_url(server_url) as client:
        client.lpush(*pushed)
        client.lpush(*pushed)
    assert bell.depth(RING.route.queue) == 2
    bell.close()
    app = make_app(Settings.load(url=server_url), INSTANCE)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(RING.route.queue)
        message = queue.get(timeout=10)
        assert message.payload == body_of(KWARGS)
        expected = headers_of(EXECUTE, message.headers["id"], KWARGS)
        assert message.headers == expected
        assert message.headers["kwargsrepr"] == repr(KWARGS)
        message.ack()
        queue.close()


@pytest.fixture
def celery_worker(server_url: str) -> Iterator[list[dict[str, Any]]]:
    """A real Celery worker in a thread, which records the arguments of its task."""
    from celery.contrib.testing.worker import start_worker
    from kombu import Queue

    taken: list[dict[str, Any]] = []
    app = make_app(Settings.load(url=server_url), INSTANCE)
    app.conf.task_queues = [Queue(RING.route.queue, routing_key=RING.route.queue)]

    @app.task(name=EXECUTE, bind=True)  # type: ignore[untyped-decorator]
    def execute(self: Any, **kwargs: Any) -> None:
        taken.append({"id": self.request.id, **kwargs})

    app.finalize()
    level = logging.getLogger().level
    with start_worker(app, pool="solo", perform_ping_check=False):  # sets the level of this process's loggers
        yield taken
    logging.getLogger().setLevel(level)
    app.close()


@pytest.mark.filterwarnings("ignore:.*superuser privileges")
def test_celery_worker_runs_a_pushed_message(server_url: str, celery_worker: list[dict[str, Any]]) -> None:
    bell = CeleryBell(Settings.load(url=server_url), INSTANCE)
    pushed = bell.message(RING)
    assert pushed is not None
    with redis.Redis.from_url(server_url) as client:
        client.lpush(*pushed)
    wait_until(lambda: celery_worker, "the worker to run the task", timeout=20)
    assert celery_worker == [{"id": json.loads(pushed[1])["headers"]["id"], **KWARGS}]


def test_publish_never_raises_and_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.load(url="redis://records.invalid/0", broker_url="unix:///nowhere/at/all?db=0")
    bell = CeleryBell(settings, INSTANCE)
    with caplog.at_level(logging.WARNING, logger="dispatcher.broker.doorbell"):
        bell.publish([RING])
        bell.publish([RING])
    assert len(caplog.records) == 1
    with pytest.raises(ServerUnavailable):
        bell.depth("local")


def test_publish_survives_a_broker_that_was_restarted(server: Server, server_url: str) -> None:
    bell = CeleryBell(Settings.load(url="redis://records.invalid/0", broker_url=server_url), INSTANCE)
    bell.publish([RING])
    server.kill()
    bell.publish([RING])  # lost, and only noted
    server.start()
    bell.publish([RING])
    assert bell.depth(RING.route.queue) >= 1
    bell.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:p%40%3B%2F@h:7/3", "redis://h:7/3"),
        ("redis://h", "redis://h:6379/0"),
        ("redis://[::1]/1", "redis://[::1]:6379/1"),
        ("unix:///a b/s?db=2", "redis+socket:///a%20b/s?virtual_host=2"),
        ("unix://me:p%2Fw@/s", "redis+socket:///s?virtual_host=0"),
        ("rediss://h/1?ssl_ca_certs=/x", "rediss://h:6379/1"),
        ("sentinel://me:p@a,b:7/main/4", "sentinel://a:26379/4;sentinel://b:7/4"),
    ],
)
def test_kombus_form_of_a_url(url: str, shown: str) -> None:
    assert broker_address(url).url == shown


def test_certificates_are_checked_unless_told_otherwise() -> None:
    import ssl

    checked = broker_address("rediss://h/0").tls
    assert checked is not None
    assert checked["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert checked["ssl_check_hostname"] is True
    unchecked = broker_address("rediss://h/0?ssl_cert_reqs=none").tls
    assert unchecked == {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False}


def test_sentinels_get_their_own_password() -> None:
    options = broker_address("sentinel://:p@a/main?sentinel_password=q").options
    assert options["master_name"] == "main"
    assert options["sentinel_kwargs"]["credential_provider"].get_credentials() == ("q",)
    assert "q" not in repr(options["sentinel_kwargs"]["credential_provider"])


@pytest.mark.parametrize("url", ["amqp://h", "h:6379", "redis://h/x", "unix://s", "sentinel://h", "redis://h:port/0"])
def test_wrong_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(InvalidSettings, match="URL"):
        broker_address(url)


def test_no_socket_waits_for_ever(server_url: str) -> None:
    app = make_app(Settings.load(url=server_url), INSTANCE)
    for connection in (app.connection_for_read(), app.connection_for_write()):
        with connection:
            kwargs = connection.default_channel.client.connection_pool.connection_kwargs
            assert 0 < kwargs["socket_timeout"] <= 10
    assert 0 < app.conf.broker_transport_options["socket_connect_timeout"] <= 5


def test_application_speaks_json_only_and_keeps_no_results() -> None:
    app = make_app(Settings.load(url="redis://:secret@h/0"), INSTANCE)
    assert app.conf.accept_content == ["json"]
    assert app.conf.result_backend is None
    assert app.conf.broker_transport_options["global_keyprefix"] == "inst:"
    assert "secret" not in repr(broker_address("redis://:secret@h/0"))
