"""A backend that raises what it shouldn't: the attempt ends once, with the error's text, and the worker works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.fake import FakeEnvironment
from dispatcher.environments.base import Environment
from dispatcher.runs.states import Cause, State
from tests.integration.test_containers import greet, start
from tests.integration.workers import Bench, Worker

pytestmark = pytest.mark.integration


class Incomplete(FakeEnvironment):
    """Environment of which the backend can't make a request: it reads a field that is missing."""

    def to_json(self) -> dict[str, Any]:
        data = super().to_json()
        del data["script"]
        return {**data, "type": "FakeEnvironment"}


def incomplete(service: Path) -> Environment:
    return Incomplete(service)


def elsewhere(service: Path) -> Environment:
    return FakeEnvironment(service / "nowhere")  # the backend can't create a container there


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            incomplete,
            "internal error: prepare of backend fake raised KeyError: 'script'; its traceback is in the log of",
        ),
        (elsewhere, "internal error: submit of backend fake raised FileNotFoundError: "),
    ],
)
def test_it_ends_the_attempt_once(
    environment: Callable[[Path], Environment],
    message: str,
    bench: Bench,
    start_worker: Callable[..., Worker],
    service: Path,
) -> None:
    worker = start(start_worker)
    processes = worker.children
    record = bench.ended(bench.submit(greet, {"name": "x"}, environment=environment(service)), timeout=30)
    assert record.outcome is not None
    assert (record.state, record.outcome.cause, record.attempt) == (State.CRASHED, Cause.START_FAILED, 1)
    assert record.outcome.message.startswith(message)
    assert f"internal error {record.outcome.message.rpartition('reference ')[2]}: " in worker.output
    after = bench.ended(bench.submit(greet, {"name": "x"}, environment=FakeEnvironment(service)))
    assert after.state is State.SUCCEEDED
    assert worker.children == processes, "no process had to end"
