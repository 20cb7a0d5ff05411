"""Projects on a real worker and in the container's runner: stored in files, with callbacks of their own.

The programs that submit run in the project's directory, the worker and its containers elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from tests.conftest import PYTHON
from tests.integration.test_supervisor import kill_runner
from tests.integration.workers import KEYS, ROOT, Bench, Worker
from tests.unit.code.projects import write
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]

PROJECT = {
    "shop/__init__.py": "",
    "shop/flows.py": """
import os, signal, time
from pathlib import Path

from dispatcher import context, flow

from . import prices
from .prices import Order

@flow
def total(order):
    from .late import margin
    import beside_shop
    factor = int((Path(__file__).parent / "factor.txt").read_text())
    return Order(order.count * prices.PRICE * factor + margin() + beside_shop.MORE)

@flow
def dies(order):
    os.kill(os.getpid(), signal.SIGKILL)

@flow
def waits(path):
    Path(path).write_text("begun")
    time.sleep(60)
""",
    "shop/prices.py": """
from dataclasses import dataclass

PRICE = 5

@dataclass
class Order:
    count: int
""",
    "shop/late.py": "def margin():\n    return 100\n",
    "shop/factor.txt": "2",
    "shop/hooks.py": """
from dispatcher import context

def begin():
    print("on_start", __file__)

def end():
    print("on_exit", context.state, __file__)
""",
    "beside_shop.py": "MORE = 1000\n",
    "submit.py": """
import sys
from pathlib import Path

from backends.fake import FakeEnvironment
from dispatcher import Dispatcher, LocalEnvironment, LocalStorage, RedisStorage
from shop import flows, hooks
from shop.prices import Order

_, name, storage, environment, value = sys.argv
storage = LocalStorage(storage) if storage else RedisStorage()
callbacks = dict(on_start=hooks.begin, on_exit=hooks.end)
environment = FakeEnvironment(environment, **callbacks) if environment else LocalEnvironment(**callbacks)
parameters = {"path": value} if name == "waits" else {"order": Order(int(value))}
with Dispatcher() as client:
    run = client.submit(getattr(flows, name), parameters, storage=storage, environment=environment)
    print(run.id, flush=True)
    if name == "total":
        print(run.result(timeout=60))
""",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The project's directory."""
    return write(tmp_path / "home", PROJECT)


@pytest.fixture
def submit(home: Path, server_url: str) -> Callable[..., list[str]]:
    """Submits a flow in a program of the project; returns what that prints: the run's id, and a result."""

    def call(name: str, value: object = 3, *, storage: Path | str = "", service: Path | str = "") -> list[str]:
        variables = {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}
        done = subprocess.run(
            [PYTHON, "submit.py", name, str(storage), str(service), str(value)],
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return call


def said(bench: Bench, record: Record, moment: str) -> list[str]:
    """Return the lines that a callback has printed."""
    return [line for line in bench.lines(record.id) if line.startswith(moment)]


@pytest.mark.parametrize("contained", [False, True], ids=["pool process", "container"])
@pytest.mark.parametrize("kept", ["redis", "files"])
def test_flow_and_callbacks_import_from_the_bundle(
    bench: Bench,
    start_worker: StartWorker,
    submit: Callable[..., list[str]],
    service: Path,
    tmp_path: Path,
    kept: str,
    contained: bool,
) -> None:
    start_worker(backends=["local", "fake"], concurrency=1, timing={"poll": 0.2})
    run_id, result = submit(
        "total", storage=tmp_path / "kept" if kept == "files" else "", service=service if contained else ""
    )
    assert result == "Order(count=1130)"
    record = bench.ended(run_id)
    assert (record.state, record.exit_call) == (State.SUCCEEDED, ExitCall.CALLED)
    (begun,), (ended,) = said(bench, record, "on_start"), said(bench, record, "on_exit")
    assert ended.startswith("on_exit SUCCEEDED")
    for line in (begun, ended):
        assert line.endswith("shop/hooks.py")
        assert str(tmp_path / "home") not in line


def test_an_edited_module_of_a_stored_flow_runs_in_the_same_worker(
    start_worker: StartWorker, submit: Callable[..., list[str]], home: Path, tmp_path: Path
) -> None:
    start_worker(concurrency=1)
    assert submit("total", storage=tmp_path / "kept")[1] == "Order(count=1130)"
    write(home, {"shop/late.py": "def margin():\n    return 0\n", "shop/factor.txt": "3"})
    assert submit("total", storage=tmp_path / "kept")[1] == "Order(count=1045)"


@pytest.mark.parametrize("kept", ["redis", "files"])
def test_on_exit_of_a_killed_pool_process_imports_from_the_bundle(
    bench: Bench, start_worker: StartWorker, submit: Callable[..., list[str]], home: Path, tmp_path: Path, kept: str
) -> None:
    start_worker(concurrency=1)
    (run_id,) = submit("dies", storage=tmp_path / "kept" if kept == "files" else "")
    record = bench.ended(run_id)
    assert (record.state, record.exit_call) == (State.CRASHED, ExitCall.CALLED)
    (ended,) = said(bench, record, "on_exit CRASHED")
    assert ended.endswith("shop/hooks.py")
    assert str(home) not in ended


def test_a_worker_calls_on_exit_of_a_dead_container_from_no_bundle(
    bench: Bench, start_worker: StartWorker, submit: Callable[..., list[str]], service: Path, tmp_path: Path
) -> None:
    """Also if its processes have the very bundle, and settings allow the callback."""
    timing = {"poll": 0.2, "on_exit_timeout": 20.0}
    start_worker(backends=["local", "fake"], concurrency=1, timing=timing, callbacks=["shop.hooks"])
    assert submit("total")[1] == "Order(count=1130)"
    begun = tmp_path / "begun"
    (run_id,) = submit("waits", begun, service=service)
    wait_until(begun.exists, "the flow's start", timeout=60)
    kill_runner(bench, run_id)
    record = bench.ended(run_id)
    assert (record.state, record.exit_call) == (State.CRASHED, ExitCall.RAISED)
    assert "No module named 'shop'" in " ".join(bench.lines(run_id))
    assert said(bench, record, "on_exit CRASHED") == []
    assert submit("total")[1] == "Order(count=1130)"
