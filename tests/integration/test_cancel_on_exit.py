"""A cancel while ``on_exit`` runs changes nothing, because the flow has ended, and the answer says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.fake import FakeEnvironment
from dispatcher import Dispatcher, InvalidInput, LocalEnvironment, Run, flow
from dispatcher.environments.base import Environment
from dispatcher.runs.events import EventKind
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.states import State
from tests.conftest import PYTHON
from tests.integration.workers import KEYS, Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

COMMAND = str(Path(PYTHON).with_name("dispatcher"))

StartWorker = Callable[..., Worker]

FLOWS = """
import time
from pathlib import Path
from dispatcher import LocalEnvironment, flow

here = Path({here!r})

def on_exit():
    (here / "begun").touch()
    while not (here / "enough").exists():
        time.sleep(0.02)
    (here / "over").touch()

exiting = LocalEnvironment(on_exit=on_exit)

@flow
def quick():
    return "done"
"""


@flow
def quick(fails: bool = False) -> str:
    if fails:
        raise ValueError("no such luck")
    return "done"


def environment(where: str, service: Path) -> Environment:
    """Return an environment whose ``on_exit`` writes that it has begun, waits for a file, and writes that it has
    ended."""

    def on_exit() -> None:
        (service / "begun").write_text(str(os.getpid()))
        while not (service / "enough").exists():
            time.sleep(0.02)
        (service / "over").touch()

    if where == "pool process":
        return LocalEnvironment(on_exit=on_exit)
    return FakeEnvironment(service, on_exit=on_exit)


@pytest.fixture(params=["pool process", "container"])
def during(request: pytest.FixtureRequest, service: Path, start_worker: StartWorker) -> Callable[..., Environment]:
    """The environment, with a worker that serves it."""
    backends = ["local"] if request.param == "pool process" else ["fake"]
    start_worker(backends=backends, concurrency=1, timing={"on_exit_timeout": 60.0})
    return lambda: environment(request.param, service)


def exiting(bench: Bench, client: Dispatcher, service: Path, run_id: str) -> Run[str]:
    """Return the run once its outcome is stored and ``on_exit`` runs."""
    wait_until((service / "begun").exists, "on_exit", timeout=60)
    bench.until(run_id, lambda record: record.settled_at is not None, "the outcome")
    return client.get(run_id)


def test_the_answer_is_true_and_nothing_is_changed(
    bench: Bench, client: Dispatcher, service: Path, server_url: str, during: Callable[..., Environment]
) -> None:
    run = exiting(bench, client, service, bench.submit(quick, environment=during()))
    before = bench.record(run.id)
    assert before.state is State.RUNNING
    assert run.cancel() is False
    assert client.cancel(run.id) is False
    assert "has ended as SUCCEEDED; its on_exit is running" in run.explain()[0]
    environ = {**os.environ, "DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}
    output = subprocess.run(
        [COMMAND, "cancel", run.id], env=environ, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert output == f"{run.id}  SUCCEEDED already; its on_exit is running\n"
    after = bench.record(run.id)
    assert (after.state, after.outcome, after.settled_at) == (before.state, before.outcome, before.settled_at)

    (service / "enough").touch()
    record = bench.ended(run.id)
    assert (record.state, record.exit_call) == (State.SUCCEEDED, ExitCall.CALLED)
    assert (service / "over").exists()
    assert EventKind.CANCELLING not in {event.kind for event in bench.events(run.id)}
    with pytest.raises(InvalidInput, match="SUCCEEDED already"):
        run.cancel()


def test_ctrl_c_while_on_exit_runs_says_so_and_waits(
    bench: Bench, client: Dispatcher, start_worker: StartWorker, server_url: str, tmp_path: Path
) -> None:
    start_worker(concurrency=1, timing={"on_exit_timeout": 60.0})
    (tmp_path / "flows.py").write_text(FLOWS.format(here=str(tmp_path)))
    environ = {**os.environ, "DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}
    process = subprocess.Popen(
        [COMMAND, "run", "flows.py:quick", "--environment", "flows.py:exiting"],
        cwd=tmp_path, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_until((tmp_path / "begun").exists, "on_exit", timeout=60)
    (run,) = client.runs()
    bench.until(run.id, lambda record: record.settled_at is not None, "the outcome")
    process.send_signal(signal.SIGINT)
    output = ""
    assert process.stderr is not None
    while "it has ended as SUCCEEDED already; its on_exit is running" not in output:
        line = process.stderr.readline()
        assert line, output
        output += line
    (tmp_path / "enough").touch()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert (tmp_path / "over").exists()


def test_a_retry_that_would_follow_is_cancelled_and_on_exit_goes_on(
    bench: Bench, client: Dispatcher, service: Path, during: Callable[..., Environment]
) -> None:
    run_id = bench.submit(quick, {"fails": True}, environment=during(), retries=1)
    run = exiting(bench, client, service, run_id)
    assert run.cancel() is True
    assert run.cancel() is False
    (service / "enough").touch()
    record = bench.ended(run_id)
    assert (record.state, record.attempt, record.exit_call) == (State.CANCELLED, 1, ExitCall.CALLED)
    assert (service / "over").exists()
