"""The Redis user of Flower: it may look and control, and put nothing into a queue."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher import flow
from tests.integration.acl_server import INSTANCE, Guarded
from tests.integration.test_flower import Flower
from tests.integration.workers import ROOT, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@flow
def count(to: int) -> int:
    return sum(range(to))


def test_flower_itself_can_look(guarded: Guarded, start_guarded: Callable[[], Worker], tmp_path: Path) -> None:
    """Its page names workers, tasks and lengths of queues, and nothing that it asks for is refused."""
    start_guarded()
    flower = Flower(guarded.tcp("flower"), tmp_path, "--control", "--auth", "a:b")

    def get(path: str) -> str:
        return flower.get(path, "a:b")[1]

    try:
        wait_until(lambda: '"hostname"' in get("/workers?json=1"), "the worker on Flower's page", timeout=30)
        with guarded.client() as client:
            assert client.submit(count, {"to": 3}).result(timeout=60) == 3
        wait_until(lambda: "SUCCESS" in get("/api/tasks"), "the task on Flower's page", timeout=30)
        for path in ("/api/workers?refresh=1", "/broker", "/tasks"):
            assert flower.get(path, "a:b")[0] == 200
        assert '"messages": 0' in get("/api/queues/length")
    finally:
        flower.end()
        sys.stdout.write(flower.output)
    assert "Failed" not in flower.output
    assert guarded.refusals() == []


@pytest.mark.parametrize("user", ["flower", "admin"])
def test_who_only_looks_puts_nothing_back(guarded: Guarded, user: str) -> None:
    """Celery's transport has whoever listens put messages back into queues that somebody took long ago."""
    message = json.dumps([{"body": "x", "headers": {}, "properties": {}}, "", "local"])
    guarded.admin.hset(f"{INSTANCE}:unacked", "tag", message)
    guarded.admin.zadd(f"{INSTANCE}:unacked_index", {"tag": 1.0})

    asked = _inspect(guarded, user)

    assert "No nodes replied" in asked.stderr
    assert guarded.admin.hlen(f"{INSTANCE}:unacked") == 1
    assert guarded.admin.llen(f"{INSTANCE}:local") == 0
    assert guarded.refusals() == []


def test_a_worker_puts_back_what_another_left(guarded: Guarded, start_guarded: Callable[[], Worker]) -> None:
    message = json.dumps([{"body": "", "headers": {}, "properties": {}}, "", "dropped"])
    guarded.admin.hset(f"{INSTANCE}:unacked", "tag", message)
    guarded.admin.zadd(f"{INSTANCE}:unacked_index", {"tag": 1.0})
    start_guarded()
    wait_until(lambda: guarded.admin.llen(f"{INSTANCE}:dropped") == 1, "the message, put back", timeout=30)
    assert guarded.admin.hlen(f"{INSTANCE}:unacked") == 0
    assert guarded.refusals() == []


def test_celery_s_own_commands_can_look(guarded: Guarded, start_guarded: Callable[[], Worker]) -> None:
    start_guarded()
    asked = _inspect(guarded, "flower")
    assert "pong" in asked.stdout, asked.stderr
    assert guarded.refusals() == []


def _inspect(guarded: Guarded, user: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "inspect", "ping"],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "DISPATCHER__URL": guarded.url(user)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
