"""The context of a run, as flows see it."""

from __future__ import annotations

import logging
import threading

import pytest

from dispatcher import State, context, flow
from dispatcher.runs.context import ended, entered
from dispatcher.serialization import pack, unpack


def test_outside_a_run_there_is_nothing() -> None:
    assert context.run_id is None
    assert context.attempt is None
    assert context.flow is None
    assert context.labels == ()
    assert context.tags == ()
    assert dict(context.parameters) == {}
    assert context.state is None
    assert context.exception is None
    assert repr(context) == "<context outside a run>"
    ended(State.FAILED)
    assert context.state is None


def test_the_logger_is_a_plain_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        context.logger.info("%d files", 3)
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("dispatcher.flow", "3 files")]


def test_inside_a_run_it_is_filled_and_leaving_restores_it() -> None:
    parameters = {"a": 1}
    with entered(run_id="r1", attempt=2, flow="f", labels=["x"], parameters=parameters, tags=["t"]):
        assert (context.run_id, context.attempt, context.flow) == ("r1", 2, "f")
        assert (context.labels, context.tags) == (("x",), ("t",))
        assert context.parameters == parameters
        with pytest.raises(TypeError):
            context.parameters["a"] = 2  # type: ignore[index]
        assert context.state is None
        error = ValueError("x")
        ended(State.FAILED, error)
        assert context.state is State.FAILED
        assert context.exception is error
        with entered(run_id="r2", attempt=1, flow="g"):
            assert context.run_id == "r2"
            assert context.state is None
        assert context.run_id == "r1"
    assert context.run_id is None
    assert context.exception is None


def test_another_thread_is_outside() -> None:
    run_ids: list[str | None] = []
    with entered(run_id="r1", attempt=1, flow="f"):
        thread = threading.Thread(target=lambda: run_ids.append(context.run_id))
        thread.start()
        thread.join()
    assert run_ids == [None]


def test_a_pickled_flow_uses_the_context_of_its_process() -> None:
    @flow
    def who() -> str | None:
        return context.run_id

    there = unpack(pack(who, subject="it"))
    with entered(run_id="r1", attempt=1, flow="f"):
        assert there() == "r1"
        assert unpack(pack(context, subject="it")) is context


def test_async_flows_see_it_also_inside_a_loop() -> None:
    import asyncio

    @flow
    async def who() -> str | None:
        return context.run_id

    async def inside() -> str | None:
        return who()

    with entered(run_id="r1", attempt=1, flow="f"):
        assert who() == "r1"
        assert asyncio.run(inside()) == "r1"
