"""Flows that wait for runs that they have submitted, in a pool where all others do so, too: a warning says so."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher import Dispatcher, Run, flow
from dispatcher.runs.states import State
from dispatcher.settings import Settings
from tests.integration.acl_server import AclServer
from tests.integration.workers import KEYS, Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]

WAITS: dict[str, Callable[[Dispatcher, Run[int]], Any]] = {
    "result": lambda client, run: run.result(),
    "timeout": lambda client, run: run.result(timeout=300),
    "wait": lambda client, run: client.wait([run]),
    "as_completed": lambda client, run: list(client.as_completed([run])),
    "events": lambda client, run: list(run.events(follow=True)),
    "logs": lambda client, run: list(run.logs(follow=True)),
    "await": lambda client, run: asyncio.run(_awaited(run)),
}


async def _awaited(run: Run[int]) -> int:
    return await run


@flow
def child(number: int) -> int:
    return number + 1


@flow
def parent(number: int, how: str) -> int:
    with Dispatcher() as client:
        run = client.submit(child, {"number": number})
        WAITS[how](client, run)
        return run.result()


def told(bench: Bench, run_id: str) -> list[str]:
    return [line for line in bench.lines(run_id) if "can't start" in line]


def _timeless(sentences: list[str]) -> list[str]:
    """Remove durations."""
    return [re.sub(r"\d+ s\b", "some time", sentence) for sentence in sentences]


def test_every_wait_in_a_flow_says_so_once(bench: Bench, client: Dispatcher, start_worker: StartWorker) -> None:
    start_worker(concurrency=len(WAITS))
    runs = {how: bench.submit(parent, {"number": number, "how": how}) for number, how in enumerate(WAITS)}
    for how, run_id in runs.items():
        wait_until(lambda run_id=run_id: told(bench, run_id), f"the warning of {how}", timeout=60)  # type: ignore[misc]
    waiting = {run.id: run for run in client.runs(flow=child)}
    assert len(waiting) == len(WAITS)
    for run in waiting.values():
        assert run.state is State.QUEUED
        by = bench.record(run.id).spec.parent
        assert by in runs.values()
        first, second, *_ = run.explain()
        assert f"all {len(WAITS)} that serve its queue are held by runs whose own runs wait there" in first
        assert f"run {by} (flow 'parent', which submitted it)" in first
        assert "--concurrency" in second
        assert _timeless(client.explain(run)) == _timeless(run.explain())
    with pytest.raises(TimeoutError, match="whose own runs wait there"):
        next(iter(waiting.values())).result(timeout=0.1)

    start_worker(concurrency=1)
    for number, (how, run_id) in enumerate(runs.items()):
        assert bench.ended(run_id).state is State.SUCCEEDED
        assert client.get(run_id).result() == number + 1
        (line,) = told(bench, run_id)
        assert "which submitted it" in line, how
        assert "later run" in line


def test_a_client_behind_the_acl_reads_it(acl_server: AclServer, start_acl_worker: StartWorker) -> None:
    start_acl_worker(concurrency=1)
    settings = Settings.load(url=acl_server.url("client"), signing_keys=json.dumps(KEYS))
    with Dispatcher(settings=settings) as client:
        run = client.submit(hold, {})
        wait_until(lambda: run.state is State.RUNNING, "the parent", timeout=30)
        from dispatcher.runs.context import entered

        with entered(run_id=run.id, attempt=1, flow="hold"):
            waiting = client.submit(child, {"number": 1})
        assert f"run {run.id} (flow 'hold', which submitted it)" in waiting.explain()[0]
        run.cancel()
        assert waiting.result(timeout=60) == 2


@flow
def hold() -> None:
    import time

    time.sleep(300)
