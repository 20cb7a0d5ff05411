"""Errors in the words that people read: none has the name of an error by which the engine decides."""

from __future__ import annotations

import logging

import pytest

from dispatcher.errors import Permanent, Refused, Transient
from dispatcher.runner.loading import loading_failed
from dispatcher.runs.states import Cause
from dispatcher.support.tracebacks import described
from tests.waiting import wait_until
from workers.error_isolation import ErrorIsolation
from workers.reconciler.loop import PeriodicSweep, Reconciler
from workers.ticker import Ticker

ENGINE = [Transient("the API server is away"), Permanent("no such kind", cause=Cause.CONFIG_ERROR), Refused("too late")]


@pytest.mark.parametrize("error", ENGINE, ids=lambda error: type(error).__name__)
def test_an_error_of_the_engine_is_its_message(error: Exception) -> None:
    assert described(error) == str(error)
    assert type(error).__name__ not in described(type(error).__new__(type(error)))


@pytest.mark.parametrize(("error", "reason"), [(ENGINE[0], ""), (ENGINE[2], ""), (ValueError("odd"), "ValueError")])
def test_the_reason_of_an_attempt_that_could_not_be_opened(error: Exception, reason: str) -> None:
    outcome = loading_failed(error, subject="its flow")
    assert (outcome.reason, outcome.message) == (reason, f"its flow can't be opened: {error}")


def test_any_other_error_has_its_type() -> None:
    assert described(ValueError("odd")) == "ValueError: odd"
    assert described(KeyError()) == "KeyError"


def test_a_run_that_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    with ErrorIsolation(logging.getLogger("workers.test")).run("r1"):
        raise ENGINE[0]
    assert caplog.messages == ["Run 'r1' is skipped for now: the API server is away"]


@pytest.mark.parametrize(("error", "shown"), [(ENGINE[0], False), (ValueError("odd"), True)], ids=["foreseen", "not"])
def test_a_thread_whose_tick_fails_shows_a_traceback_of_defects_alone(
    caplog: pytest.LogCaptureFixture, error: Exception, shown: bool
) -> None:
    def tick() -> float:
        raise error

    ticker = Ticker("test", tick, lambda: None)
    ticker.start()
    wait_until(lambda: caplog.records, "the log line")
    ticker.stop(10)
    record = caplog.records[0]
    assert record.getMessage() == f"Error in the test thread: {described(error)}"
    assert bool(record.exc_info) is shown


@pytest.mark.parametrize(("error", "shown"), [(ENGINE[0], False), (ValueError("odd"), True)], ids=["foreseen", "not"])
def test_a_sweep_that_fails(caplog: pytest.LogCaptureFixture, error: Exception, shown: bool) -> None:
    def run() -> None:
        raise error

    Reconciler(lambda: ((PeriodicSweep("orphans", 0.0, run),), lambda: None)).tick()
    [record] = caplog.records
    assert record.getMessage() == f"Sweep of orphans failed: {described(error)}"
    assert bool(record.exc_info) is shown
