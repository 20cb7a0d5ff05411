"""A worker whose Redis user is wrong or has too few rights ends at its start, or warns once and keeps trying."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dispatcher.connect import check_worker
from dispatcher.errors import ServerUnavailable
from dispatcher.settings import Settings
from tests.integration.acl_server import INSTANCE, AclServer
from tests.integration.workers import KEYS, QUICK, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def _check(acl_server: AclServer, user: str, broker: str | None = None) -> None:
    urls = {"url": acl_server.url(user), "broker_url": None if broker is None else acl_server.url(broker)}
    check_worker(Settings.load(**urls, signing_keys=json.dumps(KEYS)), INSTANCE, ["local", "local:eu"])


def test_the_worker_s_user_may_all_and_nothing_is_done(acl_server: AclServer) -> None:
    before = {key: acl_server.admin.dump(key) for key in acl_server.admin.keys("*")}

    _check(acl_server, "worker")

    assert acl_server.refusals() == []
    assert {key: acl_server.admin.dump(key) for key in acl_server.admin.keys("*")} == before


@pytest.mark.parametrize("user", ["client", "runner", "flower"])
def test_other_users_may_not_be_workers(user: str, acl_server: AclServer) -> None:
    with pytest.raises(ServerUnavailable, match=r"DISPATCHER__URL.* the user `worker`") as caught:
        _check(acl_server, user)
    assert caught.value.denied

    with pytest.raises(ServerUnavailable, match=r"DISPATCHER__BROKER_URL.* the user `worker`"):
        _check(acl_server, "worker", broker=user)


@pytest.mark.parametrize(
    "rule",
    [
        "resetchannels",
        "off",
        "-fcall",
        "-brpop",
        "-hset",
        "-zadd",
        "-xadd",
        "-xread",
        "-publish",
        "-subscribe",
        "-get",
        "-del",
        "-multi",
    ],
)
def test_each_right_that_is_missing(rule: str, acl_server: AclServer) -> None:
    acl_server.admin.execute_command("ACL", "SETUSER", "worker", rule)

    with pytest.raises(ServerUnavailable) as caught:
        _check(acl_server, "worker")

    assert caught.value.denied


def test_missing_functions_that_the_user_may_not_load(acl_server: AclServer) -> None:
    acl_server.admin.function_flush("SYNC")
    acl_server.admin.execute_command("ACL", "SETUSER", "worker", "-function|load")

    with pytest.raises(ServerUnavailable, match="dispatcher admin install") as caught:
        _check(acl_server, "worker")

    assert caught.value.denied


@pytest.mark.parametrize("command", [("-m", "workers"), ("-c", "from dispatcher.cli import main; main()", "worker")])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        (lambda server: server.url("worker").replace("WORKER_", "X"), "refuses the user name or the password; check"),
        (lambda server: server.url("client"), "DISPATCHER__URL"),
        (lambda server: f"unix://{server.socket}", "refuses the user name or the password; check DISPATCHER__URL"),
    ],
    ids=["password", "rights", "nobody"],
)
def test_a_worker_ends_at_its_start(
    url: Callable[[AclServer], str], message: str, command: tuple[str, ...], acl_server: AclServer
) -> None:
    worker = Worker(url(acl_server), acl_server.directory, command=command)
    try:
        assert worker.wait() == 6
    finally:
        worker.end()
    (line,) = worker.output.strip().splitlines()
    assert message in line
    assert "DISPATCHER__URL" in line


def test_the_broker_s_password(acl_server: AclServer) -> None:
    wrong = acl_server.url("worker").replace("WORKER_", "X")
    environ = {"DISPATCHER__BROKER_URL": wrong}
    worker = Worker(acl_server.url("worker"), acl_server.directory, environ=environ)
    try:
        assert worker.wait() == 6
    finally:
        worker.end()
    (line,) = worker.output.strip().splitlines()
    assert "refuses the user name or the password; check DISPATCHER__BROKER_URL" in line


def test_rights_that_vanish_are_said_once(acl_server: AclServer, start_acl_worker: Callable[[], Worker]) -> None:
    worker = start_acl_worker()
    ready = len(worker.output)
    refused = "The server refuses this worker, trying again"

    acl_server.admin.execute_command("ACL", "SETUSER", "worker", "-@all")
    wait_until(lambda: len(acl_server.refusals()) and refused in worker.output, "the worker's words", timeout=30)
    tries = QUICK["renew"]
    began = acl_server.admin.time()[0]
    wait_until(lambda: acl_server.admin.time()[0] > began + 6 * tries, "some more tries", timeout=30)
    acl_server.admin.execute_command("ACL", "LOAD")
    worker.says("The server is back")

    lines = worker.output[ready:].strip().splitlines()
    assert len(lines) == 2, lines
    assert refused in lines[0]
    worker.send(15)
    assert worker.wait() == 0
