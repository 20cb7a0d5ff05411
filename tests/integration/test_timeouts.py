"""The ``timeout`` of each wait: seconds or a timedelta; anything else is refused at once, ended run or not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dispatcher import Dispatcher, InvalidInput, NotFinished, Retry, Run, UnknownRun, flow
from tests.integration.workers import Bench, Worker

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:No live worker")]

WAITS: dict[str, Callable[[Dispatcher, Run[Any], Any], Any]] = {
    "result": lambda client, run, timeout: run.result(timeout),
    "exception": lambda client, run, timeout: run.exception(timeout),
    "run.wait": lambda client, run, timeout: run.wait(timeout),
    "wait": lambda client, run, timeout: client.wait([run], timeout=timeout),
    "as_completed": lambda client, run, timeout: client.as_completed([run], timeout),
    "subscribe": lambda client, run, timeout: client.subscribe("s", timeout=timeout),
}
NO_TIMES: tuple[Any, ...] = ("1", [1], True, float("nan"), float("inf"), 1e300, 10**400, timedelta.max, {}, b"1", 1j)


@flow
def give(value: int) -> int:
    return value


@pytest.fixture
def open_run(client: Dispatcher) -> Run[Any]:
    return client.submit(give, {"value": 1})  # there is no worker


@pytest.fixture
def ended_run(client: Dispatcher, bench: Bench, start_worker: Callable[..., Worker]) -> Run[Any]:
    start_worker(concurrency=1)
    run = client.submit(give, {"value": 2})
    bench.ended(run.id)
    run.result(60)
    return run


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("kind", ["open_run", "ended_run"])
def test_what_is_no_time_is_refused_at_once(
    wait: str, kind: str, client: Dispatcher, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(kind)
    for timeout in NO_TIMES:
        with pytest.raises(InvalidInput, match=r"^timeout: must be seconds") as raised:
            WAITS[wait](client, run, timeout)
        assert len(str(raised.value)) < 250


@pytest.mark.parametrize("timeout", [0, -1, -1e300, float("-inf"), timedelta(seconds=-5), timedelta(milliseconds=20)])
def test_a_time_that_is_over_ends_each_wait_in_the_same_way(
    timeout: Any, client: Dispatcher, open_run: Run[Any]
) -> None:
    for wait in ("result", "exception"):
        with pytest.raises(NotFinished):
            WAITS[wait](client, open_run, timeout)
    assert open_run.wait(timeout) is False
    assert client.wait([open_run], timeout=timeout).not_done == {open_run}
    with pytest.raises(NotFinished):
        list(client.as_completed([open_run], timeout))
    assert list(client.subscribe("new", timeout=timeout)) == []


def test_a_timedelta_is_a_timeout(client: Dispatcher, ended_run: Run[Any]) -> None:
    minute = timedelta(minutes=1)
    fresh = client.get(ended_run.id)
    assert (ended_run.result(minute), fresh.result(minute), fresh.exception(minute)) == (2, 2, None)
    assert [run.id for run in client.as_completed([fresh], minute)] == [fresh.id]


def test_a_value_is_not_repeated_whole_in_an_error(client: Dispatcher) -> None:
    long = "x" * 100_000
    for call in (
        lambda: client.submit(give, {"value": 1}, name=long),
        lambda: client.submit(give, {"value": 1}, idempotency_key=long),
        lambda: client.subscribe(long),
        lambda: client.get(long),
        lambda: Run(long),
        lambda: client.runs(state=long),
        lambda: client.submit(give, {"value": 1}, environment=long),
        lambda: client.submit(give, {"value": 1}, tags=long),
        lambda: Retry(1, on=[long]),
        lambda: Retry(1, delay=long),  # type: ignore[arg-type]
    ):
        with pytest.raises((InvalidInput, UnknownRun), match="xxx") as raised:
            call()
        assert len(str(raised.value)) < 500, str(raised.value)[:100]


@pytest.mark.parametrize(
    "values", [{"on": None}, {"on": 5}, {"delay": True}, {"backoff": True}, {"jitter": True}, {"delay": float("nan")}]
)
def test_a_retry_policy_names_its_wrong_value(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(InvalidInput, match=f"^retries: {name} must be"):
        Retry(1, **values)
