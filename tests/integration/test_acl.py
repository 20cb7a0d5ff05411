"""The Redis users of ``docs/security.md`` have exactly the rights that their roles need."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from backends.fake import FakeEnvironment
from dispatcher import Dispatcher, FlowFailed, LocalEnvironment, RunCancelled, flow
from dispatcher.errors import ServerUnavailable
from dispatcher.records.redis.scripts import library, script
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import State
from dispatcher.settings import Settings
from tests.integration.acl_server import INSTANCE, AclServer
from tests.integration.workers import KEYS, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@flow
def count(to: int) -> int:
    print("counting")  # noqa: T201 - what is printed arrives
    return sum(range(to))


@flow
def many(size: int) -> bytes:
    return b"x" * size


@flow
def fail() -> None:
    raise ZeroDivisionError("no")


@flow
def forever() -> None:
    import time

    time.sleep(3600)


def test_roles_can_do_their_work(acl_server: AclServer, start_acl_worker: Callable[[], Worker]) -> None:
    worker = start_acl_worker()
    with acl_server.client() as client:
        # an idempotency key and none, an on_exit, results inline, as a blob and of several parts
        first = client.submit(count, {"to": 4}, environment=LocalEnvironment(on_exit=int), idempotency_key="k")
        assert first.result(timeout=60) == 6
        assert client.submit(count, {"to": 4}, environment=LocalEnvironment(on_exit=int), idempotency_key="k") == first
        assert [len(run.result(timeout=60)) for run in client.map(many, [{"size": 10}, {"size": 20_000_000}])] == [
            10,
            20_000_000,
        ]

        failed = client.submit(fail, retries=Retry(1, delay=0))
        with pytest.raises(FlowFailed):
            failed.result(timeout=60)
        assert {event.attempt for event in failed.events()} == {1, 2}

        running = client.submit(forever)
        wait_until(lambda: running.state is State.RUNNING, "the flow to run", timeout=30)
        running.cancel()
        with pytest.raises(RunCancelled):
            running.result(timeout=60)

        assert "counting" in [line.text for line in first.logs()]
        assert len(list(client.runs(flow="many"))) == 2
        assert client.get(first.id).result() == 6
        subscription = client.subscribe("billing")
        again = client.submit(count, {"to": 2})
        assert next(event for event in subscription if event.run_id == again.id)
        assert again.result(timeout=60) == 1
    worker.send(15)
    assert worker.wait() == 0
    assert acl_server.refusals() == []


def test_a_submit_to_a_backend_that_the_acl_does_not_name_leaves_nothing(acl_server: AclServer, tmp_path: Path) -> None:
    """Regression: the record was stored before the push was refused, and the reconciler rang for it."""
    with acl_server.client() as client:
        with pytest.warns(match="No live worker"):
            client.submit(count, {"to": 1})
        before = {key: acl_server.admin.dump(key) for key in acl_server.admin.keys("*") if b"::blob:" not in key}
        with pytest.raises(ServerUnavailable, match=f"may not ring {INSTANCE}:fake"):
            client.submit(count, {"to": 1}, environment=FakeEnvironment(tmp_path))
    assert {key: acl_server.admin.dump(key) for key in acl_server.admin.keys("*") if b"::blob:" not in key} == before


def test_functions_come_back_with_a_worker(acl_server: AclServer, start_acl_worker: Callable[[], Worker]) -> None:
    with acl_server.client() as client:
        acl_server.admin.function_flush("SYNC")
        with pytest.raises(ServerUnavailable, match="dispatcher admin install"):
            client.submit(count, {"to": 1})
        start_acl_worker()
        assert client.submit(count, {"to": 3}).result(timeout=60) == 3
        acl_server.admin.function_flush("SYNC")
        wait_until(acl_server.admin.function_list, "the library, after a beat", timeout=60)
        assert client.submit(count, {"to": 3}).result(timeout=60) == 3
    assert {refusal[2] for refusal in acl_server.refusals()} == {"function|load"}


def test_a_worker_that_may_not_load_works_where_an_administrator_did(
    acl_server: AclServer, start_acl_worker: Callable[[], Worker]
) -> None:
    acl_server.admin.execute_command("ACL", "SETUSER", "worker", "-function|load")
    start_acl_worker()
    with acl_server.client() as client:
        assert client.submit(count, {"to": 3}).result(timeout=60) == 3
    assert acl_server.refusals() == []


def test_a_client_submits_beside_what_another_one_spoilt(acl_server: AclServer) -> None:
    """With the rights of the page, functions have no more rights than their caller."""
    with acl_server.client() as client:
        with pytest.warns(match="No live worker"):
            run = client.submit(count, {"to": 1}, idempotency_key="k")
        with acl_server.as_user("client") as attacker:
            last = f"{2**64 - 1}-{2**64 - 1}"
            for key in (f"{INSTANCE}::events", f"{INSTANCE}::run:{run.id}:events"):
                attacker.xadd(key, {"fact": "{}", "time": "1"}, id=last)
            [blob] = list(acl_server.admin.keys(f"{INSTANCE}::blob:*"))
            attacker.hset(blob, "refs", "none")
            attacker.set(f"{INSTANCE}::key:other", run.id)
        assert client.submit(count, {"to": 1}, idempotency_key="k") == run
        assert client.submit(count, {"to": 1}, idempotency_key="other") != run
        run.cancel()
        assert run.state is State.CANCELLED
    assert acl_server.refusals() == []


SCRIPTS = [
    ("EVAL", "return 1", "0"),
    ("EVALSHA", "0" * 40, "0"),
    ("SCRIPT", "LOAD", "return 1"),
    (
        "FUNCTION",
        "LOAD",
        "REPLACE",
        "#!lua name=mine\nredis.register_function('mine', function() while true do end end)",
    ),
    ("FUNCTION", "DELETE", library().name),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "RESTORE", "x"),
]

FORBIDDEN = {
    "client": [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        *SCRIPTS,
        ("SHUTDOWN",),
        ("SET", "dispatcher:instance", "mine"),
        ("PUBLISH", f"{INSTANCE}:/0.celery.pidbox", "shutdown"),
        ("SUBSCRIBE", f"{INSTANCE}:/0.celeryev/worker.heartbeat"),
        ("RPOP", f"{INSTANCE}:local"),
        ("BRPOP", f"{INSTANCE}:local", "1"),
        ("LRANGE", f"{INSTANCE}:local", "0", "-1"),
        ("DEL", f"{INSTANCE}:local"),
        ("LPUSH", f"{INSTANCE}:kubernetes", "x"),
        ("HGETALL", f"{INSTANCE}:unacked"),
        ("LPUSH", f"{INSTANCE}:localhost", "x"),
        ("HSET", f"{INSTANCE}::engine:used:1", "x", "1"),
        ("HGETALL", f"{INSTANCE}::engine:used:1"),
        ("HSET", f"{INSTANCE}::leases", "fake/1", "9 me"),
        ("HSET", f"{INSTANCE}::workers", "w", "{}"),
        ("HSET", f"{INSTANCE}::beats", "w", "1"),
        ("ZADD", f"{INSTANCE}::beaten", "1", "w"),
        ("ZADD", f"{INSTANCE}::passed", "1", "local"),
        ("XADD", f"{INSTANCE}::inbox:fake/1", "*", "run", "r"),
        ("XREAD", "STREAMS", f"{INSTANCE}::inbox:fake/1", "0"),
        ("XTRIM", f"{INSTANCE}::events", "MAXLEN", "0"),
        ("FCALL", script("acquire").name, "1", f"{INSTANCE}::leases", "fake/1", "me", "", ""),
        (
            "FCALL",
            script("beat").name,
            "3",
            *(f"{INSTANCE}::{key}" for key in ("workers", "beats", "beaten")),
            "0",
            "w",
        ),
        ("FCALL", script("report").name, "2", f"{INSTANCE}::inbox:fake/1", f"{INSTANCE}::report:x", "60", "run", "r"),
        ("GET", "staging::run:1"),
        ("SET", "anything", "1"),
        ("SET", f"{INSTANCE}::ix:due", "1"),
        ("HSET", f"{INSTANCE}::ix:due", "x", "1"),
        ("XADD", f"{INSTANCE}::queues", "*", "x", "1"),
        ("ZADD", f"{INSTANCE}::routes", "1", "x"),
        ("SADD", f"{INSTANCE}::events", "x"),
    ],
    "worker": [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("EVAL", "return 1", "0"),
        ("FUNCTION", "FLUSH"),
        ("DEL", "staging::run:1"),
        ("LPUSH", "staging:local", "x"),
        ("PUBLISH", "staging:/0.celery.pidbox", "shutdown"),
    ],
    "flower": [
        ("FLUSHALL",),
        ("SET", f"{INSTANCE}::run:1", "x"),
        ("HSET", f"{INSTANCE}::run:1", "state", "SUCCEEDED"),
        ("GET", f"{INSTANCE}::key:k"),
        ("HGETALL", f"{INSTANCE}::run:1"),
        ("LPUSH", f"{INSTANCE}:local", "x"),
        ("RPUSH", f"{INSTANCE}:local", "x"),
        ("BRPOP", f"{INSTANCE}:local", "1"),
        ("LRANGE", f"{INSTANCE}:local", "0", "-1"),
        ("HDEL", f"{INSTANCE}:unacked", "tag"),
        ("SET", f"{INSTANCE}:unacked_mutex", "x"),
        ("DEL", f"{INSTANCE}:local"),
        *SCRIPTS,
        ("FCALL", script("share").name, "1", f"{INSTANCE}::blob:x", "60", ""),
        ("PUBLISH", f"{INSTANCE}::topic:queues", ""),
        ("GET", "staging::run:1"),
    ],
}


@pytest.mark.parametrize(
    ("user", "command"), [(user, command) for user, them in FORBIDDEN.items() for command in them], ids=str
)
def test_what_a_role_may_not(shared_acl_server: AclServer, user: str, command: tuple[str, ...]) -> None:
    with shared_acl_server.as_user(user) as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command)


@pytest.mark.parametrize("credentials", ["", "client:wrong@"])
def test_strangers_are_kept_out(acl_server: AclServer, credentials: str) -> None:
    url = f"unix://{credentials}{acl_server.socket}?db=0"

    client = Dispatcher(settings=Settings.load(url=url, signing_keys=json.dumps(KEYS)))
    with pytest.raises(ServerUnavailable, match="password"), client:
        list(client.runs())


@pytest.mark.row(34)
def test_the_client_s_user_without_a_key_has_no_code_run(
    acl_server: AclServer, start_acl_worker: Callable[[], Worker]
) -> None:
    """A writer of records can spoil a run, but can't change what it does."""
    with acl_server.client() as client:
        with pytest.warns(match="No live worker"):
            run = client.submit(count, {"to": 3})
        with acl_server.as_user("client") as attacker:
            key = f"{INSTANCE}::run:{run.id}"
            spec: Any = attacker.hget(key, "spec_bytes")
            forged = spec.replace(b"count", b"c0unt", 1)
            assert forged != spec
            attacker.hset(key, "spec_bytes", forged)

        start_acl_worker()

        assert run.exception(timeout=60) is not None
        assert run.state is State.CRASHED
        assert list(run.logs()) == []
