"""The client on ``memory://``: every flow runs in this process, through the same states and scripts as elsewhere."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import pytest

from dispatcher import (
    Dispatcher,
    FlowFailed,
    InvalidFlow,
    InvalidInput,
    InvalidParameters,
    InvalidSettings,
    LocalEnvironment,
    Retry,
    Run,
    State,
    UnknownRun,
    context,
    flow,
)
from dispatcher.client.runs import Runs
from dispatcher.environments.base import Environment
from dispatcher.errors import IdempotencyConflict
from dispatcher.runs.events import EventKind
from dispatcher.settings import Settings
from dispatcher.support.ids import LENGTH, made_at, new_id
from tests.unit.making import make_record
from tests.unit.sums import add, fail
from tests.waiting import wait_until


@pytest.fixture
def client() -> Iterator[Dispatcher]:
    with Dispatcher("memory://") as dispatcher:
        yield dispatcher


class TestSubmit:
    def test_result(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        assert run.result(timeout=5) == 3
        assert run.state is State.SUCCEEDED
        assert run.done()
        assert run.exception() is None
        assert run.wait(0)

    def test_events_logs_and_timeline(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        kinds = [event.kind for event in run.events(follow=True)]
        assert kinds == [
            EventKind.QUEUED,
            EventKind.CLAIMED,
            EventKind.PROVISIONING,
            EventKind.PENDING,
            EventKind.STARTED,
            EventKind.EXITED,
        ]
        assert [line.text for line in run.logs(follow=True)] == ["adding"]
        timeline = run.timeline()
        assert timeline.end == "SUCCEEDED"
        assert [phase.name for phase in timeline][-1] == "running"
        assert "SUCCEEDED" in str(timeline)
        assert timeline.total is not None

    def test_failure(self, client: Dispatcher) -> None:
        run = client.submit(fail, {"text": "no luck"})
        with pytest.raises(FlowFailed, match="ValueError: no luck") as caught:
            run.result()
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.run_id == run.id
        assert caught.value.state is State.FAILED
        assert "in fail" in caught.value.traceback
        assert isinstance(run.exception(), FlowFailed)

    def test_submit_precedes_flow_precedes_settings(self) -> None:
        settings = Settings.load(url="memory://", defaults={"timeout": 7, "start_within": 8, "result_ttl": 9})

        @flow(timeout=70, start_within=80)
        def plain() -> None: ...

        with Dispatcher(settings=settings) as client:
            run = client.submit(plain, timeout=timedelta(minutes=12))
            options = client.records.runs.get(run.id)[0].spec.options
        assert (options.timeout, options.start_within, options.result_ttl) == (720.0, 80.0, 9.0)

    def test_retries_wait_their_delay_and_use_the_policy(self, client: Dispatcher) -> None:
        run = client.submit(fail, retries=Retry(2, delay=0.01))
        assert run.exception() is not None
        assert [event.attempt for event in run.events() if event.kind is EventKind.EXITED] == [1, 2, 3]

    def test_types_are_kept(self, client: Dispatcher) -> None:
        runs = client.map(add, [{"a": 1}])
        assert_type(runs, Runs[int])
        assert_type(client.submit(add, {"a": 1}), Run[int])
        assert_type(runs[0].result(), int)
        assert_type(next(client.as_completed(runs)), Run[int])

        @flow(timeout=5)
        async def later() -> str:
            return "x"

        async def awaited() -> None:
            assert_type(await client.submit(later), str)

        asyncio.run(awaited())

    def test_storage_knows_what_was_added(self, client: Dispatcher) -> None:
        from dispatcher import RedisStorage

        storage = RedisStorage()
        client.submit(add, {"a": 1}, storage=storage)
        assert "add" in storage

    def test_a_runs_name_stands_beside_its_flows(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1}, name="sum up")
        assert (run.flow, run.name) == ("add", "sum up")
        assert next(client.runs(flow=add)) == run

    def test_labels_tags_and_callbacks(self, client: Dispatcher) -> None:
        calls: list[Any] = []

        def leave() -> None:
            calls.append((context.state, context.labels))

        run = client.submit(add, {"a": 1}, environment=LocalEnvironment(labels=["gpu"]), tags=["night"])
        assert client.records.runs.get(run.id)[0].spec.tags == ("night",)
        run = client.submit(add, {"a": 1}, environment=LocalEnvironment(on_exit=leave))
        assert client.records.runs.get(run.id)[0].exit_call == "called"


class TestBadInput:
    def test_a_bare_function(self, client: Dispatcher) -> None:
        with pytest.raises(InvalidFlow, match="@flow"):
            client.submit(add.fn)  # type: ignore[call-overload]

    @pytest.mark.parametrize("parameters", [{}, {"a": 1, "c": 2}, {"b": 1}])
    def test_parameters_that_do_not_fit(self, client: Dispatcher, parameters: dict[str, int]) -> None:
        with pytest.raises(InvalidParameters, match="add"):
            client.submit(add, parameters)

    def test_parameters_that_cannot_be_pickled(self, client: Dispatcher) -> None:
        with pytest.raises(InvalidParameters, match="lock"):
            client.submit(add, {"a": threading.Lock()})

    def test_parameters_too_large(self) -> None:
        settings = Settings.load(url="memory://", limits={"parameters": 10})
        with Dispatcher(settings=settings) as client, pytest.raises(InvalidParameters, match="LIMITS__PARAMETERS"):
            client.submit(add, {"a": 1, "b": 10**20})

    def test_a_flow_that_cannot_be_pickled(self, client: Dispatcher) -> None:
        lock = threading.Lock()

        @flow
        def holds() -> bool:
            return lock.locked()

        with pytest.raises(InvalidFlow, match="lock"):
            client.submit(holds)

    def test_options(self, client: Dispatcher) -> None:
        with pytest.raises(InvalidInput, match="timeout"):
            client.submit(add, {"a": 1}, timeout=-1)
        with pytest.raises(InvalidInput, match="tags"):
            client.submit(add, {"a": 1}, tags="night")
        with pytest.raises(InvalidInput, match="idempotency_key"):
            client.submit(add, {"a": 1}, idempotency_key="")
        with pytest.raises(InvalidInput, match=r"environment 'locl': no such name; did you mean local\?"):
            client.submit(add, {"a": 1}, environment="locl")
        with pytest.raises(InvalidInput, match="environment: must be"):
            client.submit(add, {"a": 1}, environment=[])  # type: ignore[call-overload]

    @pytest.mark.parametrize("options", [{"environment": 3}, {"environment": []}, {"storage": 3}, {"storage": 0}])
    def test_the_options_of_a_flow_are_checked_at_submit(self, client: Dispatcher, options: dict[str, Any]) -> None:
        (name,) = options
        with pytest.raises(InvalidInput, match=f"{name}: must be"):
            client.submit(flow(**options)(lambda a: a), {"a": 1})
        assert list(client.runs()) == []

    def test_a_backend_that_starts_elsewhere(self, client: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
        class Elsewhere(Environment):
            backend = "elsewhere"

            def check(self) -> None: ...

        with pytest.raises(InvalidInput, match="DISPATCHER__URL"):
            client.submit(add, {"a": 1}, environment=Elsewhere())
        assert list(client.runs()) == []

    def test_unknown_run(self, client: Dispatcher) -> None:
        with pytest.raises(UnknownRun, match="26 letters"):
            client.get("nonsense")
        with pytest.raises(UnknownRun, match="retention"):
            client.get(new_id())
        with pytest.raises(UnknownRun):
            Run[Any](new_id(), client._sessions).result()

    def test_cancel_of_a_finished_run(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        with pytest.raises(InvalidInput, match="SUCCEEDED already"):
            run.cancel()

    def test_wrong_urls(self) -> None:
        with pytest.raises(InvalidSettings, match="scheme"):
            Dispatcher("http://localhost")

    def test_no_server_and_no_laptop(self) -> None:
        client = Dispatcher(settings=Settings.load(embedded=False))
        with pytest.raises(InvalidSettings, match="DISPATCHER__URL"):
            client.submit(add, {"a": 1})

    def test_filters(self, client: Dispatcher) -> None:
        with pytest.raises(InvalidInput, match="state"):
            client.runs(state="HAPPY")
        with pytest.raises(InvalidInput, match="since"):
            client.runs(since="yesterday")  # type: ignore[arg-type]
        for wrong in ({"label": 5}, {"tag": ["x"]}, {"flow": add.fn}, {"limit": -1}, {"limit": "all"}):
            (name,) = wrong
            with pytest.raises(InvalidInput, match=f"{name}: must be"):
                client.runs(**wrong)
        with pytest.raises(InvalidInput, match="return_when"):
            client.wait([], return_when="NEVER")
        with pytest.raises(InvalidInput, match="not a run"):
            client.wait(["x"])  # type: ignore[arg-type]

    def test_closed(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        client.close()
        client.close()
        with pytest.raises(InvalidInput, match="closed"):
            client.submit(add, {"a": 1})
        with pytest.raises(InvalidInput, match="closed"):
            run.events()
        with pytest.raises(InvalidInput, match="can't be pickled"):
            pickle.dumps(client)


class TestMap:
    def test_in_order(self, client: Dispatcher) -> None:
        runs = client.map(add, ({"a": n} for n in range(5)))
        assert [run.result() for run in runs] == [2, 3, 4, 5, 6]
        assert [run.id for run in runs] == sorted(run.id for run in runs)

    def test_all_are_checked_before_one_is_accepted(self, client: Dispatcher) -> None:
        with pytest.raises(InvalidParameters, match="item 1"):
            client.map(add, [{"a": 1}, {"z": 1}])
        with pytest.raises(InvalidParameters, match="lock"):
            client.map(add, [{"a": 1}, {"a": threading.Lock()}])
        with pytest.raises(InvalidParameters, match="iterable"):
            client.map(add, {"a": 1})  # type: ignore[dict-item]
        assert list(client.runs()) == []

    def test_key_per_item(self, client: Dispatcher) -> None:
        first = client.map(add, [{"a": 1}, {"a": 2}], idempotency_key="k")
        again = client.map(add, [{"a": 1}, {"a": 2}, {"a": 3}], idempotency_key="k")
        assert again[:2] == first
        assert again[2] not in first

    def test_nothing(self, client: Dispatcher) -> None:
        assert client.map(add, []) == []


class TestIdempotency:
    def test_same_key_same_run(self, client: Dispatcher) -> None:
        first = client.submit(add, {"a": 1}, idempotency_key="k")
        assert client.submit(add, {"a": 1}, idempotency_key="k") == first
        assert len(list(client.runs())) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"parameters": {"a": 2}},
            {"environment": LocalEnvironment(labels=["x"])},
            {"timeout": 5},
            {"name": "other"},
            {"environment": LocalEnvironment(on_exit=lambda: None)},
        ],
        ids=str,
    )
    def test_another_spec(self, client: Dispatcher, change: dict[str, Any]) -> None:
        client.submit(add, {"a": 1}, idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            client.submit(add, **{"parameters": {"a": 1}, "idempotency_key": "k", **change})

    def test_sealed_bytes_are_outside(self, client: Dispatcher) -> None:
        def environment(text: str) -> LocalEnvironment:
            return LocalEnvironment(on_exit=lambda: len(text))

        first = client.submit(add, {"a": 1}, environment=environment("x"), idempotency_key="k")
        assert client.submit(add, {"a": 1}, environment=environment("y"), idempotency_key="k") == first

    def test_parameters_that_json_does_not_carry(self, client: Dispatcher) -> None:
        @flow
        def scale(a: complex, b: int) -> str:
            return str(a * b)

        def same(a: complex, b: int) -> Run[Any]:
            return client.submit(scale, {"a": a, "b": b}, idempotency_key="k")

        assert same(1j, 1) == same(2j, 1)
        with pytest.raises(IdempotencyConflict):
            same(1j, 2)


class TestFinding:
    def test_runs(self, client: Dispatcher) -> None:
        good = client.submit(add, {"a": 1})
        bad = client.submit(fail, environment=LocalEnvironment(labels=["gpu"]))
        assert list(client.runs()) == [bad, good]
        assert list(client.runs(state="failed")) == [bad]
        assert list(client.runs(label="gpu")) == [bad]
        assert list(client.runs(flow=add)) == [good]
        assert list(client.runs(tag="sums")) == [good]
        assert list(client.runs(since=60, limit=1)) == [bad]
        assert list(client.runs(since=datetime.now(UTC) + timedelta(hours=1))) == []

    def test_get(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        assert client.get(run.id) == run
        assert client.get(run.id).result() == 3
        assert client.get_many([run.id, "none"]) == [run, None]

    def test_queues_and_workers(self, client: Dispatcher) -> None:
        client.submit(add, {"a": 1})
        assert [queue.name for queue in client.queues()] == ["local"]
        assert client.workers() == []


def test_start_within_is_enforced_where_no_worker_lives(client: Dispatcher) -> None:
    client.records.runs.create([make_record("late", start_within=0.001)])
    wait_until(lambda: client.explain("late")[0].startswith("It has ended"), "start_within to be applied")
    assert client.get("late").state is State.TIMED_OUT


def test_ids_sort_and_hold_their_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert {len(run_id) for run_id in ids} == {LENGTH}
    made = made_at(ids[0])
    assert made is not None
    assert abs(made - datetime.now(UTC).timestamp()) < 60
    assert made_at("I" * LENGTH) is None
