"""A worker runs what waits, to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dispatcher import context, flow
from dispatcher.payload import from_value
from dispatcher.runs.states import State
from tests.integration.workers import Bench, Worker

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


def result_of(bench: Bench, run_id: str) -> Any:
    """What a finished run gave back."""
    record = bench.ended(run_id)
    assert record.state is State.SUCCEEDED, (record.outcome, bench.lines(run_id))
    assert record.outcome is not None
    assert record.outcome.result is not None
    return from_value(record.outcome.result, get=bench.records.blobs.get, key=bench.keys.run_key(run_id))


@flow
def add(a: int, b: int = 1) -> int:
    context.logger.info("adding %d", a)
    return a + b


def test_a_flow_runs(bench: Bench, start_worker: StartWorker) -> None:
    start_worker()
    run_id = bench.submit(add, {"a": 2})
    assert result_of(bench, run_id) == 3
    assert "adding 2" in bench.lines(run_id)
    kinds = [str(event.kind) for event in bench.events(run_id)]
    assert kinds == ["queued", "claimed", "provisioning", "pending", "started", "exited"]
