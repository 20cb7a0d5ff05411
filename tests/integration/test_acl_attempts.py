"""A Redis user per attempt in a container, if the worker may create users: it reaches only its own run, is recreated if
the server has lost it, and is removed with its attempt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from backends.fake import FakeEnvironment
from dispatcher import Dispatcher, flow
from dispatcher.errors import InvalidInput, UnknownRun
from dispatcher.records.redis.keys import Keys
from dispatcher.records.redis.scripts import script
from dispatcher.records.redis.users import rules
from dispatcher.records.users import AttemptScope
from dispatcher.runs.states import State
from tests.integration.acl_server import INSTANCE, AclServer
from tests.integration.acl_server import rules as page_rules
from tests.integration.workers import QUICK, Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.row(34)]

RIGHTS = ("+acl|setuser", "+acl|deluser", "+acl|users")
RUN, OTHER, BLOB, PASSWORD = "run-1", "run-2", "a" * 64, "a password of 32 bytes, or nearly"


@flow
def wait_for(path: str) -> bytes:
    import time
    from pathlib import Path

    print("waiting")  # noqa: T201
    while not Path(path).exists():
        time.sleep(0.05)
    return b"x" * 200_000


@pytest.fixture
def client(acl_server: AclServer) -> Iterator[Dispatcher]:
    """A client whose user may also submit to the fake backend; the worker's user may create users."""
    queues = f"~{INSTANCE}:fake ~{INSTANCE}:fake:*"
    acl_server.admin.execute_command("ACL", "SETUSER", "client", f"({queues} +lpush +rpush +llen)")
    acl_server.admin.execute_command("ACL", "SETUSER", "worker", *RIGHTS)
    with acl_server.client() as dispatcher:
        yield dispatcher


def _users(acl_server: AclServer) -> list[str]:
    return [name for name in acl_server.admin.acl_users() if name.startswith(f"{INSTANCE}:")]


def test_an_attempt_has_a_user_for_as_long_as_it_is_wanted(
    acl_server: AclServer, client: Dispatcher, start_acl_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_acl_worker(backends=["fake"], runner_users=True)
    run = client.submit(wait_for, {"path": str(tmp_path / "go")}, environment=FakeEnvironment(tmp_path))
    wait_until(lambda: "waiting" in [line.text for line in run.logs()], "its line", timeout=60)
    (name,) = _users(acl_server)
    assert name == f"{INSTANCE}:{run.id}:1"
    connected = {info["user"] for info in acl_server.admin.client_list()}
    assert name in connected, "its container connects as that user"

    acl_server.admin.acl_deluser(name)
    wait_until(lambda: name in _users(acl_server), "the user made again", timeout=60)
    assert acl_server.refusals() == []
    (tmp_path / "go").touch()
    assert run.result(timeout=60) == b"x" * 200_000
    wait_until(lambda: not _users(acl_server), "the user gone", timeout=60)
    assert run.state is State.SUCCEEDED


def test_users_of_others_stay(
    acl_server: AclServer, client: Dispatcher, start_acl_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    names = ["staging:run-1:1", f"{INSTANCE}:people", f"{INSTANCE}x:run-1:1", f"{INSTANCE}:run-1:x"]
    for name in (*names, f"{INSTANCE}:gone:1"):
        acl_server.admin.execute_command("ACL", "SETUSER", name, "on")
    start_acl_worker(backends=["fake"], runner_users=True)
    wait_until(lambda: f"{INSTANCE}:gone:1" not in _users(acl_server), "the sweep", timeout=60)
    assert set(names) <= set(acl_server.admin.acl_users())


def test_a_worker_that_may_make_no_users_does_not_start(acl_server: AclServer) -> None:
    worker = Worker(acl_server.url("worker"), acl_server.directory, timing=QUICK, backends=["fake"], runner_users=True)
    try:
        assert worker.wait(60) != 0
        assert "DISPATCHER__WORKER__RUNNER_USERS: the worker's own Redis user may make no users" in worker.output
    finally:
        worker.end()


@pytest.fixture(scope="module")
def attempt(shared_acl_server: AclServer) -> Iterator[Any]:
    """A connection of an attempt's user."""
    reach = AttemptScope(run_id=RUN, attempt=1, shard="fake/0", blobs=(BLOB,))
    shared_acl_server.admin.execute_command("ACL", "SETUSER", "attempt", *rules(Keys(INSTANCE), reach, PASSWORD))
    with redis.Redis(
        unix_socket_path=str(shared_acl_server.socket), username="attempt", password=PASSWORD
    ) as connection:
        yield connection


def _run(run_id: str, rest: str = "") -> str:
    return f"{INSTANCE}::run:{run_id}{rest}"


FORBIDDEN: list[tuple[str, ...]] = [
    ("HGETALL", _run(OTHER)),
    ("HGETALL", f"{INSTANCE}::blob:{'b' * 64}"),
    ("HGETALL", _run(OTHER, ":blobs")),
    ("HSET", _run(OTHER, ":blobs"), "x", "x"),
    ("XADD", _run(OTHER, ":logs"), "*", "x", "x"),
    ("HSET", _run(f"{RUN}1", ":lines"), "1", "1"),
    ("EXPIRE", _run(OTHER, ":logs"), "0"),
    ("GET", f"{INSTANCE}::claim:{OTHER}:1"),
    ("SET", f"{INSTANCE}::claim:{RUN}:2", "x"),
    ("SET", f"{INSTANCE}::claim:{OTHER}:1", "x"),
    ("XADD", f"{INSTANCE}::inbox:fake/1", "*", "x", "x"),
    ("XREAD", "STREAMS", f"{INSTANCE}::inbox:fake/0", "0"),
    ("XTRIM", f"{INSTANCE}::inbox:fake/0", "MAXLEN", "0"),
    ("HSET", _run(RUN), "state", "SUCCEEDED"),
    ("XADD", _run(RUN, ":events"), "*", "x", "x"),
    ("HSET", f"{INSTANCE}::blob:{BLOB}", "0", "x"),
    ("FCALL", script("append").name, "2", _run(OTHER, ":logs"), _run(OTHER, ":lines"), _run(OTHER), "60", "1", "1"),
    ("ACL", "SETUSER", "attempt", "+@all"),
    ("ACL", "WHOAMI"),
    ("CONFIG", "GET", "*"),
    ("KEYS", "*"),
    ("SCAN", "0"),
]


@pytest.mark.parametrize("command", FORBIDDEN, ids=str)
def test_what_the_user_of_an_attempt_may_not(attempt: Any, command: tuple[str, ...]) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        attempt.execute_command(*command)


def test_its_commands_are_those_of_the_users_that_all_share() -> None:
    """Except ``client|setinfo``, which sends the library's name to the server."""
    (page,) = [line for line in page_rules().splitlines() if line.startswith("user runner ")]
    mine = rules(Keys(INSTANCE), AttemptScope(run_id=RUN, attempt=1, shard="fake/0"), PASSWORD)
    assert _commands(" ".join(mine)) == _commands(page.replace(" +client|setinfo", ""))


def _commands(rules: str) -> list[set[str]]:
    """Return the commands of the root and of each selector."""
    return [set(re.findall(r"\+([a-z|]+)", part)) for part in rules.split("(")]


@pytest.mark.parametrize(
    "command",
    [
        ("HGETALL", _run(RUN)),
        ("HGET", f"{INSTANCE}::blob:{BLOB}", "0"),
        ("XADD", _run(RUN, ":logs"), "*", "x", "x"),
        ("XADD", f"{INSTANCE}::inbox:fake/0", "*", "x", "x"),
        ("SET", f"{INSTANCE}::claim:{RUN}:1", "x"),
        ("GET", "dispatcher:instance"),
    ],
    ids=str,
)
def test_what_it_may(attempt: Any, command: tuple[str, ...]) -> None:
    attempt.execute_command(*command)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"run_id": "run ~*"}, UnknownRun),
        ({"run_id": "*"}, UnknownRun),
        ({"shard": "fake/0 ~*"}, InvalidInput),
        ({"blobs": ("* +@all",)}, KeyError),
    ],
)
def test_no_word_becomes_a_rule(changes: dict[str, Any], error: type[Exception]) -> None:
    reach = AttemptScope(**{"run_id": RUN, "attempt": 1, "shard": "fake/0", **changes})
    with pytest.raises(error):
        rules(Keys(INSTANCE), reach, PASSWORD)
