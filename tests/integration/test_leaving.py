"""Leaving a client's ``with`` closes all its connections, and ends no run. What a laptop can't do is an error at
submit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from backends.fake import FakeEnvironment
from dispatcher import Dispatcher, InvalidInput, NotFinished, State, flow
from dispatcher.settings import Settings
from tests.conftest import PYTHON
from tests.integration.laptop import User, run
from tests.integration.workers import KEYS, Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

COMMAND = str(Path(PYTHON).with_name("dispatcher"))


@flow
def slow(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@pytest.mark.filterwarnings("ignore:No live worker")
def test_leaving_closes_connections_and_threads_and_ends_no_run(
    server_url: str, bench: Bench, start_worker: Callable[..., Worker]
) -> None:
    def connections() -> set[str]:
        with redis.Redis.from_url(server_url) as raw:
            return {info["id"] for info in raw.client_list() if info["cmd"] != "client|list"}

    before, threads = connections(), threading.active_count()
    with Dispatcher(settings=Settings.load(url=server_url, signing_keys=json.dumps(KEYS))) as client:
        run = client.submit(slow, {"seconds": 0.1})
        run.on_exit(lambda event: None)
        with pytest.raises(NotFinished):
            run.result(timeout=0.5)
        assert connections() - before, "it has some while it is used"
        assert threading.active_count() > threads
    wait_until(lambda: connections() <= before, "the end of its connections")
    wait_until(lambda: threading.active_count() <= threads, "the end of its threads")
    assert bench.record(run.id).state is State.QUEUED
    start_worker(concurrency=1)
    assert bench.ended(run.id).state is State.SUCCEEDED


def test_runs_that_start_elsewhere_are_refused_at_the_laptop_server(user: User, tmp_path: Path) -> None:
    with Dispatcher(settings=user.settings) as client:
        with pytest.raises(InvalidInput, match=r"can't report to the laptop server.*DISPATCHER__URL.*--backend fake"):
            client.submit(slow, {"seconds": 0.0}, environment=FakeEnvironment(tmp_path))
        assert list(client.runs()) == []
    wait_until(user.stopped, "the end of the server, for which nothing is open", timeout=40)


@pytest.mark.parametrize("command", ["run", "submit"])
def test_what_is_refused_there_starts_no_server(user: User, tmp_path: Path, command: str) -> None:
    (tmp_path / "flows.py").write_text("from dispatcher import flow\n\n@flow\ndef one(): return 1\n")
    (tmp_path / "environment.json").write_text(json.dumps(FakeEnvironment(tmp_path).to_json()))
    arguments = [f"{tmp_path}/flows.py:one", "--environment", f"{tmp_path}/environment.json"]
    done = run(user, [COMMAND, command, *arguments])
    assert done.returncode == 2
    assert "can't report to the laptop server" in done.stderr
    assert "started" not in done.stderr
    with pytest.raises(InvalidInput, match="can't report to the laptop server"):
        Dispatcher(settings=user.settings).submit(slow, {"seconds": 0.0}, environment=FakeEnvironment(tmp_path))
    assert user.stopped()
    assert not (user.state / "data").exists()
