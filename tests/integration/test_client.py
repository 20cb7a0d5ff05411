"""The client on a real server; a thread that runs attempts stands in for a worker."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis

from dispatcher import (
    Dispatcher,
    DispatcherWarning,
    FlowFailed,
    IdempotencyConflict,
    InvalidSettings,
    LocalEnvironment,
    NotFinished,
    Run,
    SealBroken,
    State,
    UnknownRun,
    flow,
)
from dispatcher.client.watcher import POLL_INTERVAL
from dispatcher.connect import connect
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import indexes
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.routing import Offer
from dispatcher.settings import Settings
from tests.conftest import Server
from tests.integration.stand_ins import ThreadWorker
from tests.waiting import wait_until

KEYS = json.dumps({"k1": "a secret that only these tests know"})

pytestmark = pytest.mark.filterwarnings("ignore:No live worker")


@flow
def add(a: int, b: int = 2) -> int:
    return a + b


@flow
def give(value: Any) -> Any:
    return value


@flow
def tell(value: Any) -> Any:
    print("telling")  # noqa: T201 - flows print
    return value


@flow
def fail() -> None:
    raise LookupError("nothing there")


@flow
def talk(lines: int) -> None:
    for number in range(lines):
        print(number)  # noqa: T201 - flows print


@pytest.fixture
def settings(server_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DISPATCHER__URL", server_url)
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", KEYS)
    return Settings.load()


@pytest.fixture
def client(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher() as dispatcher:
        yield dispatcher


@pytest.fixture
def records(settings: Settings) -> Iterator[Records]:
    records = connect(settings)
    yield records
    records.close()


@pytest.fixture
def thread_worker(settings: Settings) -> Iterator[ThreadWorker]:
    with ThreadWorker(settings) as worker:
        yield worker


def announce(records: Records, worker_id: str = "w1") -> None:
    offer = Offer(backends=frozenset({"local"}))
    records.workers.announce(
        WorkerInfo(id=worker_id, host="mars", pid=1, offer=offer, concurrency=1, started_at=records.runs.now())
    )
    records.workers.beat(worker_id)


class TestResults:
    def test_json_and_pickle(self, client: Dispatcher, thread_worker: ThreadWorker) -> None:
        assert client.submit(add, {"a": 1}).result(timeout=20) == 3
        assert client.submit(give, {"value": {1, 2}}).result(timeout=20) == {1, 2}
        big = "x" * 200_000
        assert client.submit(give, {"value": big}).result(timeout=20) == big

    def test_another_process_finds_it(self, client: Dispatcher, thread_worker: ThreadWorker) -> None:
        run = client.submit(give, {"value": 1j})
        run.wait(20)
        with Dispatcher() as other:
            assert other.get(run.id).result() == 1j

    def test_failure(self, client: Dispatcher, thread_worker: ThreadWorker) -> None:
        with pytest.raises(FlowFailed, match="LookupError: nothing there") as caught:
            client.submit(fail).result(timeout=20)
        assert isinstance(caught.value.__cause__, LookupError)

    def test_without_the_key_json_opens_and_pickles_do_not(
        self, client: Dispatcher, thread_worker: ThreadWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain, sealed, failed = client.submit(add, {"a": 1}), client.submit(give, {"value": 1j}), client.submit(fail)
        client.wait([plain, sealed, failed], timeout=20)
        monkeypatch.delenv("DISPATCHER__SIGNING_KEYS")
        with Dispatcher() as stranger:
            assert stranger.get(plain.id).result() == 3
            with pytest.raises(InvalidSettings, match="keygen"):
                stranger.get(sealed.id).result()
            error = stranger.get(failed.id).exception()
            assert error is not None
            assert error.__cause__ is None
            assert "can't be opened here" in "".join(error.__notes__)
        monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps({"k2": "another secret altogether, of others"}))
        with Dispatcher() as stranger, pytest.raises(SealBroken, match="k1"):
            stranger.get(sealed.id).result()

    def test_await(self, client: Dispatcher, thread_worker: ThreadWorker) -> None:
        async def gathered() -> list[int]:
            runs = client.map(add, [{"a": n} for n in range(10)])
            return list(await asyncio.gather(*(_of(run) for run in runs)))

        assert asyncio.run(gathered()) == [n + 2 for n in range(10)]

    def test_many(self, client: Dispatcher, thread_worker: ThreadWorker) -> None:
        runs = client.map(add, [{"a": n} for n in range(600)])
        assert [run.id for run in runs] == sorted({run.id for run in runs})
        results = {run.id: run.result() for run in client.as_completed(runs, timeout=100)}
        assert [results[run.id] for run in runs] == [n + 2 for n in range(600)]


async def _of(run: Run[Any]) -> Any:
    return await run


class TestSubmit:
    def test_10_000_submits_leave_one_blob(self, client: Dispatcher, server_url: str) -> None:
        for n in range(200):
            client.submit(add, {"a": n})
        for _ in range(2):
            client.map(add, [{"a": n} for n in range(4850)])
        with Dispatcher() as other:
            runs = [*other.map(add, [{"a": n} for n in range(100)]), client.submit(add, {"a": 1}, idempotency_key="k")]
        assert client.records.runs.count(indexes.ALL) == 10_001
        with redis.Redis.from_url(server_url) as server:
            blobs = [key for key in server.scan_iter(count=10_000) if b":blob:" in key]
        locations = {client.records.runs.get(run.id)[0].spec.location for run in runs}
        assert [key.decode().rpartition(":")[2] for key in blobs] == list(locations)

    def test_idempotency_across_processes(self, client: Dispatcher) -> None:
        environment = LocalEnvironment(on_exit=lambda: None)
        first = client.submit(add, {"a": 1}, environment=environment, idempotency_key="k")
        with Dispatcher() as other:
            assert other.submit(add, {"a": 1}, environment=environment, idempotency_key="k") == first
            with pytest.raises(IdempotencyConflict):
                other.submit(add, {"a": 2}, environment=environment, idempotency_key="k")

    def test_a_blob_that_vanished_is_sent_again(self, client: Dispatcher, server: Server) -> None:
        client.submit(add, {"a": 1})
        server.flush()
        run = client.submit(add, {"a": 1})
        assert client.records.blobs.has(client.records.runs.get(run.id)[0].spec.location)

    def test_missing_key(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DISPATCHER__SIGNING_KEYS")
        with Dispatcher() as client, pytest.raises(InvalidSettings, match="dispatcher keygen"):
            client.submit(add, {"a": 1})

    def test_expiry_covers_all_attempts(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1}, timeout=60, start_within=40, retries=1)
        record = client.records.runs.get(run.id)[0]
        assert record.spec.expires is not None
        assert record.spec.expires - record.created_at == pytest.approx(3600 + 12 * 100, abs=30)
        run = client.submit(add, {"a": 1}, timeout=60, result_ttl=86400)
        record = client.records.runs.get(run.id)[0]
        assert record.spec.expires is not None
        assert 31 <= (record.spec.expires - record.created_at) / 86400 <= 32, "the default, the retention, a day's end"

    def test_doorbell_is_rung(self, client: Dispatcher, server_url: str) -> None:
        run = client.submit(add, {"a": 1})
        with redis.Redis.from_url(server_url) as server:
            (message,) = server.lrange(f"{client.records.instance}:local", 0, -1)
        assert json.loads(message)["headers"]["kwargsrepr"].startswith(f"{{'run_id': '{run.id}'")

    def test_doorbells_go_to_the_broker_that_is_another_server(self, client: Dispatcher, server_url: str) -> None:
        broker = server_url.replace("db=0", "db=1")
        with Dispatcher(settings=client.settings.but(broker_url=broker)) as far:
            runs = [far.submit(add, {"a": 1}), *far.map(add, [{"a": 1}, {"a": 2}])]
        with redis.Redis.from_url(broker) as server:
            messages = server.lrange(f"{client.records.instance}:local", 0, -1)
        assert len(messages) == len(runs)
        with redis.Redis.from_url(server_url) as server:
            assert not server.exists(f"{client.records.instance}:local")

    def test_a_broker_that_is_gone_costs_latency_alone(
        self, client: Dispatcher, caplog: pytest.LogCaptureFixture
    ) -> None:
        gone = client.settings.but(broker_url="redis://127.0.0.1:1/0")
        with Dispatcher(settings=gone) as far, caplog.at_level(logging.WARNING):
            run = far.submit(add, {"a": 1})
        assert client.get(run.id).state is State.QUEUED
        assert "the reconciler will ring again" in caplog.text

    def test_a_client_that_only_submits_imports_no_celery(self, server_url: str, settings: Settings) -> None:
        import subprocess
        import sys

        code = (
            "import sys\nfrom dispatcher import Dispatcher, flow\n"
            "@flow\ndef noop(): pass\n"
            "with Dispatcher() as client: client.submit(noop)\n"
            "print('celery' in sys.modules, 'kombu' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == "False False\n"


class TestRetention:
    def test_all_of_a_run_expires_together(
        self, client: Dispatcher, thread_worker: ThreadWorker, server_url: str
    ) -> None:
        big = "x" * 200_000
        run = client.submit(tell, {"value": big}, idempotency_key="k", result_ttl=timedelta(minutes=1))
        assert run.result(timeout=20) == big
        waits = client.submit(tell, environment=LocalEnvironment(labels=["l"]), parameters={"value": 1}, result_ttl=60)
        assert [line.text for line in run.logs()] == ["telling"]
        with redis.Redis.from_url(server_url) as server:
            assert len(_mentioned(server, run.id)) > 6
            for seconds, left in ((50, 0), (70, 1)):
                later = open_redis(server_url, clock_offset=seconds)
                assert later.runs.purge() == left
                later.close()
            used = {key for key in _mentioned(server, run.id) if b"::engine:used:" in key}  # till the signature expires
            assert _mentioned(server, run.id) == used
            assert _mentioned(server, waits.id)  # it has not ended: its time has not begun
        for read in (lambda: client.get(run.id), lambda: list(run.events()), lambda: list(run.logs()), run.timeline):
            with pytest.raises(UnknownRun):
                read()
        again = client.submit(tell, {"value": 2}, idempotency_key="k")
        assert again != run


def _mentioned(server: redis.Redis, run_id: str) -> set[bytes]:
    """Return the keys that belong to a run or contain its id, except doorbells, which a worker takes, and the stream of
    all events, which has its own retention."""
    reads: dict[Any, Callable[[Any], Any]] = {
        b"string": server.get,
        b"hash": server.hgetall,
        b"set": server.smembers,
        b"zset": lambda key: server.zrange(key, 0, -1),
    }
    name, keys = run_id.encode(), set()
    for key in server.scan_iter():
        read = reads.get(server.type(key))
        if name in key or (read and run_id in str(read(key))):
            keys.add(key)
    return keys


class TestNobodyThere:
    def test_submit_warns_once_in_a_while(self, client: Dispatcher) -> None:
        with pytest.warns(DispatcherWarning, match="dispatcher worker --backend local --label gpu"):
            client.submit(add, {"a": 1}, environment=LocalEnvironment(labels=["gpu"]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.submit(add, {"a": 1}, environment=LocalEnvironment(labels=["gpu"]))

    def test_no_warning_where_one_lives(self, client: Dispatcher, records: Records) -> None:
        announce(records)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run = client.submit(add, {"a": 1})
        assert "1 live worker " in client.explain(run)[0]
        assert [queue.workers[0].id for queue in client.queues()] == ["w1"]

    def test_result_warns_after_a_while_and_not_finished_says_why(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        with (
            pytest.warns(DispatcherWarning, match="dispatcher worker"),
            pytest.raises(NotFinished, match=r"QUEUED.*No live worker.*dispatcher worker --backend local"),
        ):
            run.result(timeout=5.3)

    @pytest.mark.filterwarnings("ignore:No live worker")
    def test_many_that_have_not_ended_say_why_the_first_waits(self, client: Dispatcher) -> None:
        runs = client.map(add, [{"a": 1}, {"a": 2}])
        with pytest.raises(
            NotFinished, match=rf"2 of 2 runs .*; run {runs[0].id} of flow 'add': it is QUEUED. No live"
        ):
            list(client.as_completed(runs, timeout=0.1))

    @pytest.mark.filterwarnings("ignore:run .* waits")
    def test_start_within_is_kept_by_who_waits(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1}, start_within=0.5)
        error = run.exception(timeout=3 * POLL_INTERVAL + 5)
        assert error is not None
        assert error.state is State.TIMED_OUT
        assert "not started within 0.5 s" in str(error)


class TestFollowing:
    def test_events_and_logs_of_a_run_to_come(self, client: Dispatcher, settings: Settings) -> None:
        run = client.submit(talk, {"lines": 300})
        received: list[list[Any]] = [[], []]
        threads = [
            threading.Thread(target=lambda: received[0].extend(run.events(follow=True))),
            threading.Thread(target=lambda: received[1].extend(run.logs(follow=True))),
        ]
        for thread in threads:
            thread.start()
        with ThreadWorker(settings):
            for thread in threads:
                thread.join(timeout=30)
        assert [event.kind for event in received[0]][-1] is EventKind.EXITED
        assert [line.text for line in received[1]] == [str(number) for number in range(300)]
        assert [line.number for line in received[1]] == list(range(1, 301))

    def test_callbacks(self, client: Dispatcher, settings: Settings) -> None:
        run = client.submit(add, {"a": 1})
        events: list[Event] = []
        run.on_start(events.append)
        run.on_exit(events.append)
        with ThreadWorker(settings):
            wait_until(lambda: len(events) == 2, "both events")
        assert [event.kind for event in events] == [EventKind.STARTED, EventKind.EXITED]

    def test_subscriber_resumes_in_another_process(self, client: Dispatcher, thread_worker: ThreadWorker) -> None:
        with client.subscribe("billing") as subscription:
            run = client.submit(add, {"a": 1})
            assert next(subscription).kind is EventKind.QUEUED
        with Dispatcher() as other:
            kinds = [event.kind for event in other.subscribe("billing", timeout=1) if event.run_id == run.id]
        assert kinds[0] is EventKind.QUEUED  # it was given, and not acknowledged
        assert kinds[-1] is EventKind.EXITED

    def test_cancel(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        waiter = threading.Thread(target=run.wait, args=[20])
        waiter.start()
        assert run.cancel()
        waiter.join(timeout=20)
        assert run.known_state is State.CANCELLED


def test_runs_are_waited_for_and_cancelled_together(client: Dispatcher) -> None:
    runs = client.map([add.bind(1), add.bind(2)])
    with pytest.raises(NotFinished, match=r"2 of 2 runs have not ended within 0.01 s"):
        runs.results(timeout=0.01)
    assert runs.failed() == []
    assert runs.cancel() == 2
    assert runs.cancel() == 0
    assert [run.state for run in runs.failed()] == [State.CANCELLED, State.CANCELLED]
