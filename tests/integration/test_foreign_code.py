"""User code that raises anything, in real pool processes: the run ends, and the process goes on."""

# ruff: noqa: T201 - flows print
from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher import LocalEnvironment, flow
from dispatcher.runs.states import State
from tests.integration.test_worker import pid, result_of
from tests.integration.workers import Bench, Worker

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]

NOTHING = (None, None, None)


class Own(BaseException):
    """A user's exception that isn't an Exception."""


KINDS = (SystemExit, KeyboardInterrupt, GeneratorExit, Own)


def throw(kind: type[BaseException]) -> Any:
    raise kind("thrown")


class Unpicklable:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> Any:
        return throw(self.kind)


class Unopenable:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __setstate__(self, state: dict[str, Any]) -> None:
        throw(state["kind"])


class Unspeakable(Exception):
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __str__(self) -> str:
        return str(throw(self.kind))


@flow
def gives(kind: type[BaseException]) -> Any:
    return Unpicklable(kind)


@flow
def raises(kind: type[BaseException]) -> None:
    raise Unspeakable(kind)


@flow
def takes(kind: Any) -> None:
    raise AssertionError("it is never opened")


@flow
def deep() -> Any:
    sys.setrecursionlimit(10**6)
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@flow
def looks() -> Any:
    return sys.exc_info()


def look() -> None:
    print(sys.exc_info())


def test_runs_fail_and_their_process_goes_on(bench: Bench, start_worker: StartWorker) -> None:
    worker = start_worker(concurrency=1)
    [process] = worker.children
    for kind in KINDS:
        words = [
            f"the result of flow 'gives' can't be sent: {kind.__name__}",
            "",
            "the parameters of flow 'takes' can't be",
        ]
        for target, argument, message in zip(
            (gives, raises, takes), (kind, kind, Unopenable(kind)), words, strict=True
        ):
            record = bench.ended(bench.submit(target, {"kind": argument}))
            assert (record.state, record.outcome is not None) == (State.FAILED, True), record.outcome
            assert record.outcome is not None
            assert message in record.outcome.message
    record = bench.ended(bench.submit(deep))
    assert record.state is State.FAILED
    assert record.outcome is not None
    assert "the result of flow 'deep' can't be sent: it is too deeply nested" in record.outcome.message
    assert result_of(bench, bench.submit(pid)) == process


def test_no_exception_is_being_handled_after_a_wrong_guess(bench: Bench, start_worker: StartWorker) -> None:
    """A process predicts the next run of a flow from the last one; other options make the prediction wrong."""
    start_worker(concurrency=1)
    environment = LocalEnvironment(on_start=look, on_exit=look)
    for options in ({}, {}, {"timeout": 30.0}, {"timeout": 40.0}, {"tags": ["x"]}):
        run_id = bench.submit(looks, environment=environment, **options)
        assert result_of(bench, run_id) == NOTHING
        assert bench.lines(run_id) == [str(NOTHING)] * 2
