"""A flow's output on a real worker, as followers see it: live, in order, numbered, capped, across outages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from dispatcher import Dispatcher, context, flow
from dispatcher.records.logs import Line
from dispatcher.settings import Settings
from tests.conftest import PYTHON, Server
from tests.integration.workers import KEYS, QUICK, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]
COMMAND = str(Path(PYTHON).with_name("dispatcher"))


@pytest.fixture
def client(server_url: str) -> Iterator[Dispatcher]:
    with Dispatcher(settings=Settings.load(url=server_url, signing_keys=json.dumps(KEYS), timing=QUICK)) as dispatcher:
        yield dispatcher


@flow
def count(lines: int, every: float) -> None:
    for number in range(lines):
        if number % 2:
            context.logger.info("line %d", number)
        else:
            sys.stdout.write(f"line {number}\n")
        time.sleep(every)


@flow
def chatter(lines: int) -> None:
    for number in range(lines):
        sys.stdout.write(f"line {number} {'x' * 80}\n")


class Follower(threading.Thread):
    """Follows a run's lines."""

    def __init__(self, lines: Iterator[Line]) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, Line]] = []
        self._lines = lines
        self.start()

    def run(self) -> None:
        for line in self._lines:
            self.seen.append((time.time(), line))


def test_a_follower_goes_on_after_lost_connections(
    client: Dispatcher, start_worker: StartWorker, server: Server
) -> None:
    start_worker(concurrency=1)
    run = client.submit(count, {"lines": 120, "every": 0.05})
    follower = Follower(run.logs(follow=True))
    for number in (10, 30):
        wait_until(lambda number=number: len(follower.seen) >= number, f"{number} lines")  # type: ignore[misc]
        with redis.Redis.from_url(server.url) as raw:
            raw.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: len(follower.seen) >= 50, "more lines after connections were killed")
    server.kill()
    time.sleep(1.0)  # lines are written meanwhile
    server.start()
    run.result(timeout=60)
    follower.join(30)
    assert not follower.is_alive()
    lines = [line for _, line in follower.seen]
    assert [line.text for line in lines] == [f"line {number}" for number in range(120)]
    assert [line.number for line in lines] == list(range(1, 121)), "none is missing, none comes twice"
    assert {line.attempt for line in lines} == {1}
    first_at, first = follower.seen[0]
    assert first_at - first.time < 2.0, "lines arrive while the flow runs"


def test_a_gap_stands_where_lines_are_missing(
    client: Dispatcher, start_worker: StartWorker, server_url: str, tmp_path: Path
) -> None:
    start_worker(concurrency=1, environ={"DISPATCHER__LIMITS__LOG": "10000"})
    run = client.submit(chatter, {"lines": 2000})
    run.result(timeout=30)
    lines = list(run.logs())
    [gap] = [index for index, line in enumerate(lines) if line.stream == "gap"]
    before, after = lines[:gap], lines[gap + 1 :]
    assert [line.number for line in before] == list(range(1, len(before) + 1))
    assert after[-1].text.startswith("line 1999 ")
    assert [line.number for line in after] == list(range(2001 - len(after), 2001)), "numbers tell what is missing"
    missing = 2000 - len(before) - len(after)
    variables = {"DISPATCHER__URL": server_url, "NO_COLOR": "1"}
    shown = subprocess.run(
        [COMMAND, "logs", "--follow", run.id], env={**os.environ, **variables}, cwd=tmp_path, capture_output=True,
        text=True, timeout=60, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert shown[gap] == f"[{missing:,} lines are missing (more than 10,000 bytes of log)]"
    assert len(shown) == len(lines)
