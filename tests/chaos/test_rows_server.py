"""Rows 9, 10 and 12 to 19 of the fault matrix: the server goes, stalls, refuses or forgets; nothing accepted is lost.

The workers reach their server by a proxy; one group serves all tests of this file.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from dispatcher import Dispatcher, ServerUnavailable
from dispatcher.broker.doorbell import envelope
from dispatcher.runs.change import ring_for
from dispatcher.runs.states import State
from tests.chaos.conftest import ChaosServer
from tests.chaos.deployment import Deployment, passes
from tests.chaos.flows import marked
from tests.chaos.proxy import Proxy
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

#: Seconds. No worker dies here, and a busy machine must not make one look dead; row 14 is away for longer.
LEASE = 6.0


@pytest.fixture(scope="module")
def everything(chaos_server: ChaosServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    with Deployment(
        chaos_server.url, chaos_server.port, folder, backends=["local"], drain=0.5, timing={"lease": LEASE}
    ) as deployment:
        yield deployment


@pytest.fixture
def deployment(everything: Deployment, chaos_server: ChaosServer) -> Deployment:
    """The group, healthy before each test: a run gets through at once."""
    everything.proxy.heal()
    if not chaos_server.answers():
        chaos_server.start()
    everything.runs.clear()
    everything.submit()
    everything.settle()
    return everything


@pytest.fixture
def server(chaos_server: ChaosServer) -> Iterator[redis.Redis]:
    """A client of the server itself."""
    with redis.Redis.from_url(chaos_server.url) as client:
        yield client


@pytest.mark.row(9)
def test_row_9_a_doorbell_delivered_twice_at_once(deployment: Deployment, server: redis.Redis) -> None:
    """One claim wins, and user code starts once."""
    records = [deployment.unrung() for _ in range(20)]
    key = f"{deployment.bench.records.instance}:local"
    for record in records:
        server.lpush(key, *[envelope(ring_for(record))] * 3)
    deployment.settle()
    assert {deployment.starts(record.id) for record in records} == {1}


@pytest.mark.row(10)
def test_row_10_a_doorbell_after_the_end_and_after_retention(deployment: Deployment, server: redis.Redis) -> None:
    """Both find nothing to claim."""
    [run_id] = deployment.submit()
    [*_, record] = deployment.settle()
    key = f"{deployment.bench.records.instance}:local"
    unknown = envelope(ring_for(record)).replace(run_id.encode(), b"r" + b"0" * (len(run_id) - 1))
    server.lpush(key, envelope(ring_for(record)), unknown)
    wait_until(lambda: not server.llen(key), "the doorbells to be taken", timeout=60)
    after = deployment.submit()
    deployment.settle()
    assert deployment.starts(run_id) == 1
    assert deployment.bench.record(run_id).version == record.version
    assert deployment.bench.record(after[0]).state is State.SUCCEEDED


@pytest.mark.row(12)
@pytest.mark.parametrize("activity", ["idle", "busy", "publishing"])
def test_row_12_the_server_is_killed_and_restarted(
    deployment: Deployment, chaos_server: ChaosServer, activity: str
) -> None:
    """No accepted run is lost, and no healthy flow ended."""
    if activity == "busy":
        deployment.started(deployment.submit(3, seconds=1.5)[:2])
    accepted: list[str] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            try:
                accepted.append(deployment.submit()[0])
            except ServerUnavailable:
                continue

    publisher = threading.Thread(target=publish, daemon=True)
    if activity == "publishing":
        publisher.start()
        wait_until(lambda: len(accepted) > 10, "some runs", timeout=60)
    chaos_server.kill()
    chaos_server.start()
    back = time.monotonic()
    if activity == "publishing":
        wait_until(lambda: len(accepted) > 40, "runs after the restart", timeout=60)
        stop.set()
        publisher.join()
    [late] = deployment.submit()
    records = deployment.settle(timeout=90)
    print(f"back after {time.monotonic() - back:.1f} s")  # noqa: T201
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {record.attempt for record in records} == {1}
    assert late in deployment.runs


@pytest.mark.row(13)
def test_row_13_the_last_second_of_the_server_s_log_is_lost(deployment: Deployment, chaos_server: ChaosServer) -> None:
    """A submitter that asks again with its key has one run."""
    settings = deployment.bench.settings
    environment = deployment.environment("local")
    with Dispatcher(settings=settings) as client:
        before = [client.submit(marked, {"folder": str(deployment.folder)}, environment=environment) for _ in range(5)]
        deployment.runs += [run.id for run in before]
        deployment.settle()
        deployment.proxy.cut(refuse=True)  # nobody works on what is about to be forgotten
        lost = client.submit(
            marked, {"folder": str(deployment.folder)}, environment=environment, idempotency_key="asked for again"
        )
        chaos_server.kill()
        chaos_server.forget(b"asked for again")
        chaos_server.start()
        deployment.proxy.heal()
        runs = [
            client.submit(
                marked, {"folder": str(deployment.folder)}, environment=environment, idempotency_key="asked for again"
            )
            for _ in range(2)
        ]
        assert client.get_many([lost.id]) in ([None], [runs[0]])
    assert runs[0] == runs[1]
    deployment.runs.append(runs[0].id)
    records = deployment.settle(timeout=90)
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert deployment.starts(runs[0].id) == 1


@pytest.mark.row(14)
def test_row_14_the_server_is_away_while_flows_run(
    deployment: Deployment, chaos_server: ChaosServer, long: bool
) -> None:
    """Ten minutes at these timings (a 15th of production's), or a fifth of it: no flow ends, each result is kept."""
    away = 40.0 if long else 8.0
    runs = deployment.submit(4, seconds=away / 2)
    deployment.started(runs)
    chaos_server.kill()
    passes(away)
    chaos_server.start()
    records = deployment.settle(timeout=90)
    print(f"all results {deployment.took:.1f} s after an outage of {away:g} s")  # noqa: T201
    assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}


@pytest.mark.row(15)
def test_row_15_half_open_connections_of_workers(deployment: Deployment) -> None:
    """Bytes vanish and no connection ends: workers find out by themselves, and nothing hangs."""
    runs = deployment.submit(2, seconds=3.0)
    deployment.started(runs)
    deployment.proxy.swallow()
    waiting = deployment.submit(2)
    passes(4.0)
    deployment.proxy.heal()
    records = deployment.settle(timeout=90)
    print(f"progress {deployment.took:.1f} s after the hole was closed")  # noqa: T201
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert set(waiting) <= {record.id for record in records}


@pytest.mark.row(15)
def test_row_15_a_half_open_connection_of_a_client(deployment: Deployment) -> None:
    """A submit gives up within 15 s and says that the run may exist; asking again with its key gives one run."""
    settings = deployment.bench.settings.but(url=deployment.proxy.url(), submit_within=4.0)
    parameters = {"folder": str(deployment.folder)}
    environment = deployment.environment("local")
    with Dispatcher(settings=settings) as client:
        deployment.runs.append(client.submit(marked, parameters, environment=environment).id)
        deployment.proxy.swallow()
        begun = time.monotonic()
        with pytest.raises(ServerUnavailable) as caught:
            client.submit(marked, parameters, environment=environment, idempotency_key="once")
        assert time.monotonic() - begun < 15
        assert caught.value.may_exist
        deployment.proxy.heal()
        runs = {client.submit(marked, parameters, environment=environment, idempotency_key="once") for _ in range(2)}
    [run] = runs
    deployment.runs.append(run.id)
    deployment.settle(timeout=90)
    assert deployment.starts(run.id) == 1


@pytest.mark.row(16)
def test_row_16_the_reply_of_a_worker_s_nth_script_is_lost(deployment: Deployment) -> None:
    """Counters, events and states as with no fault, whichever reply it was."""
    for nth in range(1, 9):
        deployment.proxy.lose_reply(b"FCALL", nth)
        runs = deployment.submit(3)
        records = deployment.settle()
        wait_until(deployment.proxy.has_lost, "a lost reply", timeout=60)
        assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}
        assert {deployment.starts(run_id) for run_id in runs} == {1}


@pytest.mark.row(16)
def test_row_16_the_reply_of_a_client_s_nth_command_is_lost(deployment: Deployment, chaos_server: ChaosServer) -> None:
    """Each of them in turn, until a submit sends no more: it is repeated by itself, and makes one run."""
    parameters = {"folder": str(deployment.folder)}
    environment = deployment.environment("local")
    before, nth = deployment.bench.records.runs.count("all"), 0
    with Proxy("127.0.0.1", chaos_server.port) as way:
        while way.has_lost():
            nth += 1
            way.lose_reply(b"*", nth)
            with Dispatcher(settings=deployment.bench.settings.but(url=way.url())) as client:
                deployment.runs.append(client.submit(marked, parameters, environment=environment).id)
    deployment.settle()
    assert nth > 5
    assert deployment.bench.records.runs.count("all") == before + nth


@pytest.mark.row(17)
def test_row_17_all_clients_are_killed_every_other_second(deployment: Deployment, server: redis.Redis) -> None:
    """Duplicates of doorbells are harmless, and work goes on."""
    for _ in range(4):
        deployment.submit(10, seconds=0.1)
        server.client_kill_filter(_type="normal", skipme=True)
        passes(1.5)
    records = deployment.settle(timeout=90)
    assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}


def test_all_pool_processes_die_while_the_way_is_cut(deployment: Deployment, server: redis.Redis) -> None:
    """Their worker sees all deaths in one look, replaces them, and gets over a lost connection after that."""
    assert deployment.group is not None
    group = deployment.group
    deployment.started(deployment.submit(4, seconds=2.0))
    pools = [worker.children for worker in group.workers]
    before = group.output.count("The server is unavailable")
    deployment.proxy.cut(refuse=True)
    wait_until(
        lambda: group.output.count("The server is unavailable") >= before + 2, "the cut to be noticed", timeout=60
    )
    for pid in (pid for pool in pools for pid in pool):
        os.kill(pid, signal.SIGKILL)
    deployment.proxy.heal()

    def replaced() -> bool:
        return all(len(set(worker.children) - set(old)) == 2 for worker, old in zip(group.workers, pools, strict=True))

    wait_until(replaced, "full pools", timeout=90)
    deployment.settle(timeout=90)
    server.client_kill_filter(_type="normal", skipme=True)
    waiting = deployment.submit(4)
    records = deployment.settle(timeout=90)
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {record.attempt for record in records if record.id in waiting} == {1}


def test_a_paused_server(deployment: Deployment, server: redis.Redis) -> None:
    """CLIENT PAUSE, for longer than a command may take: the same commands again, to the same end."""
    runs = deployment.submit(2, seconds=0.5)
    deployment.started(runs)
    server.client_pause(6000, all=True)
    records = deployment.settle(timeout=90)
    assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}


def test_a_slow_way(deployment: Deployment) -> None:
    """Each portion of bytes takes 0.03 s more, both ways (half a second of production)."""
    deployment.proxy.slow_down(0.03)
    deployment.submit(4)
    records = deployment.settle(timeout=90)
    assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}


@pytest.mark.row(18)
def test_row_18_the_memory_limit_is_reached_and_lifted(deployment: Deployment, server: redis.Redis) -> None:
    """Submits fail cleanly, results wait in their process, workers live, and nothing is lost."""
    assert deployment.group is not None
    running = deployment.submit(2, seconds=2.0)
    deployment.started(running)
    pids = [worker.process.pid for worker in deployment.group.workers]
    server.config_set("maxmemory", 1)
    try:
        with pytest.raises(ServerUnavailable, match="maxmemory"):
            deployment.bench.submit(marked, {"folder": str(deployment.folder)})
        passes(4.0)
    finally:
        server.config_set("maxmemory", 0)
    waiting = deployment.submit(2)
    records = deployment.settle(timeout=90)
    print(f"progress {deployment.took:.1f} s after the limit was lifted")  # noqa: T201
    assert [worker.process.pid for worker in deployment.group.workers] == pids
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert set(waiting) <= {record.id for record in records}


@pytest.mark.row(19)
def test_row_19_scripts_flushed_group_deleted_stream_trimmed(deployment: Deployment, server: redis.Redis) -> None:
    """Scripts are loaded again, groups made again; a subscriber still hears how each run ended."""
    events, name = deployment.bench.records.events, "row 19"
    events.take(name, block=0.0)
    stream = f"{deployment.bench.records.instance}::events"
    for _ in range(3):
        server.function_flush("SYNC")
        deployment.submit(3)
        server.xgroup_destroy(stream, name)
        deployment.settle()
    received = {event.run_id: event.state for _, event in events.take(name, block=0.5, limit=10000) if event.final}
    assert {run_id: received.get(run_id) for run_id in deployment.runs[1:]} == dict.fromkeys(
        deployment.runs[1:], State.SUCCEEDED
    )
    server.xtrim(stream, maxlen=0, approximate=False)
    deployment.submit(2)
    records = deployment.settle()
    assert {record.state for record in records} == {State.SUCCEEDED}


def test_an_emptied_queue(deployment: Deployment, server: redis.Redis) -> None:
    """Doorbells are lost, all at once: they are rung again, 5 s (here a third) and a tick later."""
    deployment.started(deployment.submit(4, way="holds"))
    lost = deployment.submit(5)
    key = f"{deployment.bench.records.instance}:local"
    wait_until(lambda: server.llen(key) == 5, "the doorbells", timeout=60)
    server.delete(key)
    (deployment.folder / "released").touch()
    deployment.settle()
    assert all(deployment.bench.record(run_id).rings >= 2 for run_id in lost)
    assert {deployment.starts(run_id) for run_id in lost} == {1}
