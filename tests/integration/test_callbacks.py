"""``on_start`` and ``on_exit`` on a real worker: each is called once per attempt, and reported to all subscribers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher import Dispatcher, FlowFailed, LocalEnvironment, context, flow
from dispatcher.runs.events import Event, EventKind
from dispatcher.settings import Settings
from tests.integration.workers import KEYS, Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:No live worker")]

StartWorker = Callable[..., Worker]


@flow
def third_time_lucky() -> int:
    if context.attempt == 1:
        raise LookupError("not yet")
    if context.attempt == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@flow
def nothing() -> None: ...


def noting(path: Path, *, raises: str = "") -> LocalEnvironment:
    """Return callbacks that write moment, attempt, process and end; one of them may raise."""

    def note(moment: str) -> None:
        with path.open("a") as file:
            file.write(f"{moment} {context.attempt} {os.getpid()} {context.state} {type(context.exception).__name__}\n")
        if moment == raises:
            raise ValueError(f"{moment} raised")

    return LocalEnvironment(on_start=lambda: note("on_start"), on_exit=lambda: note("on_exit"))


@pytest.fixture
def client(server_url: str) -> Iterator[Dispatcher]:
    with Dispatcher(settings=Settings.load(url=server_url, signing_keys=json.dumps(KEYS))) as dispatcher:
        yield dispatcher


def test_once_per_attempt_in_the_flows_process_or_in_a_fresh_one(
    client: Dispatcher, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(concurrency=1)
    path = tmp_path / "said"
    here: list[Event] = []
    with client.subscribe("billing", timeout=1) as subscription:
        run = client.submit(third_time_lucky, environment=noting(path), retries=2)
        run.on_start(here.append)
        run.on_exit(here.append)
        last = run.result(timeout=30)
        received = [event for event in subscription if event.kind in {EventKind.STARTED, EventKind.EXITED}]
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [(moment, attempt, *rest) for moment, attempt, _, *rest in lines] == [
        ("on_start", "1", "None", "NoneType"),
        ("on_exit", "1", "FAILED", "LookupError"),
        ("on_start", "2", "None", "NoneType"),
        ("on_exit", "2", "CRASHED", "NoneType"),
        ("on_start", "3", "None", "NoneType"),
        ("on_exit", "3", "SUCCEEDED", "NoneType"),
    ]
    pids = [pid for _, _, pid, *_ in lines]
    assert pids[0] == pids[1]
    assert pids[2] != pids[3]  # its process was killed
    assert pids[4:] == [str(last)] * 2
    expected = [(kind, attempt) for attempt in (1, 2, 3) for kind in (EventKind.STARTED, EventKind.EXITED)]
    assert [(event.kind, event.attempt) for event in received] == expected
    wait_until(lambda: len(here) == 6, "six calls here")
    assert sorted(event.id for event in here) == sorted(event.id for event in received)
    assert [event.data["on_exit"] for event in received if event.kind is EventKind.EXITED] == ["called"] * 3
    assert [event.final for event in received] == [False] * 5 + [True]


def test_callbacks_that_raise(client: Dispatcher, start_worker: StartWorker, tmp_path: Path) -> None:
    start_worker(concurrency=1)
    run = client.submit(nothing, environment=noting(tmp_path / "start", raises="on_start"))
    with pytest.raises(FlowFailed, match="on_start raised") as caught:
        run.result(timeout=30)
    assert isinstance(caught.value.__cause__, ValueError)
    assert [line.split()[0] for line in (tmp_path / "start").read_text().splitlines()] == ["on_start", "on_exit"]
    assert "FAILED ValueError" in (tmp_path / "start").read_text()
    run = client.submit(nothing, environment=noting(tmp_path / "exit", raises="on_exit"))
    assert run.result(timeout=30) is None
    assert [event.data["on_exit"] for event in run.events() if event.final] == ["raised"]
    assert "ValueError: on_exit raised" in [line.text for line in run.logs()]
