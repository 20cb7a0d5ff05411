"""The Redis user of Flower may read and control, but not write to queues."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher import flow
from tests.integration.acl_server import INSTANCE, AclServer
from tests.integration.test_flower import Flower
from tests.integration.workers import ROOT, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@flow
def count(to: int) -> int:
    return sum(range(to))


def test_flower_itself_can_look(acl_server: AclServer, start_acl_worker: Callable[[], Worker], tmp_path: Path) -> None:
    """Its pages show workers, tasks and queue lengths, and the server denies none of its commands."""
    start_acl_worker()
    flower = Flower(acl_server.tcp("flower"), tmp_path, "--control", "--auth", "a:b")

    def get(path: str) -> str:
        return flower.get(path, "a:b")[1]

    try:
        wait_until(lambda: '"hostname"' in get("/workers?json=1"), "the worker on Flower's page", timeout=30)
        with acl_server.client() as client:
            assert client.submit(count, {"to": 3}).result(timeout=60) == 3
        wait_until(lambda: "SUCCESS" in get("/api/tasks"), "the task on Flower's page", timeout=30)
        for path in ("/api/workers?refresh=1", "/broker", "/tasks"):
            assert flower.get(path, "a:b")[0] == 200
        assert '"messages": 0' in get("/api/queues/length")
    finally:
        flower.end()
        sys.stdout.write(flower.output)
    assert "Failed" not in flower.output
    assert acl_server.refusals() == []


@pytest.mark.parametrize("user", ["flower", "admin"])
def test_who_only_looks_puts_nothing_back(acl_server: AclServer, user: str) -> None:
    """In Celery's transport, every listener restores messages that were taken from queues long ago."""
    message = json.dumps([{"body": "x", "headers": {}, "properties": {}}, "", "local"])
    acl_server.admin.hset(f"{INSTANCE}:unacked", "tag", message)
    acl_server.admin.zadd(f"{INSTANCE}:unacked_index", {"tag": 1.0})

    asked = _inspect(acl_server, user)

    assert "No nodes replied" in asked.stderr
    assert acl_server.admin.hlen(f"{INSTANCE}:unacked") == 1
    assert acl_server.admin.llen(f"{INSTANCE}:local") == 0
    assert acl_server.refusals() == []


def test_a_worker_puts_back_what_another_left(acl_server: AclServer, start_acl_worker: Callable[[], Worker]) -> None:
    message = json.dumps([{"body": "", "headers": {}, "properties": {}}, "", "dropped"])
    acl_server.admin.hset(f"{INSTANCE}:unacked", "tag", message)
    acl_server.admin.zadd(f"{INSTANCE}:unacked_index", {"tag": 1.0})
    start_acl_worker()
    wait_until(lambda: acl_server.admin.llen(f"{INSTANCE}:dropped") == 1, "the message, put back", timeout=30)
    assert acl_server.admin.hlen(f"{INSTANCE}:unacked") == 0
    assert acl_server.refusals() == []


def test_celery_s_own_commands_can_look(acl_server: AclServer, start_acl_worker: Callable[[], Worker]) -> None:
    start_acl_worker()
    asked = _inspect(acl_server, "flower")
    assert "pong" in asked.stdout, asked.stderr
    assert acl_server.refusals() == []


def _inspect(acl_server: AclServer, user: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "inspect", "ping"],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "DISPATCHER__URL": acl_server.url(user)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
