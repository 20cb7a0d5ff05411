"""Records while the server or the connection fails: nothing is lost or doubled, and no wait is endless."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis

from dispatcher.errors import InvalidSettings, ServerUnavailable
from dispatcher.records.base import Records
from dispatcher.records.leases import Lease
from dispatcher.records.logs import Line
from dispatcher.records.redis import open_redis
from dispatcher.records.rejections import Rejected, Tally
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import transitions
from dispatcher.runs.indexes import ALL, EXPIRING
from dispatcher.runs.routing import Offer
from dispatcher.runs.states import State
from tests.conformance.proxy import Proxy
from tests.conformance.specs import accept, cancel, ended, make, start
from tests.conftest import Server
from tests.waiting import wait_until


@pytest.fixture
def records(server_url: str) -> Iterator[Records]:
    """Records on the server, without the proxy."""
    opened = open_redis(server_url)
    yield opened
    opened.close()


@pytest.fixture
def raw(server_url: str) -> Iterator[redis.Redis]:
    """A plain connection to the server."""
    with redis.Redis.from_url(server_url, decode_responses=True) as client:
        yield client


def life(records: Records, tag: str) -> tuple[object, ...]:
    """Play the life of a run with a use of every interface; return the final state without times."""
    blob = records.blobs.share(b"flow" * 10_000)
    records.events.take(tag, block=0)
    made = make(tags=[tag], key=f"key-{tag}", blobs=(blob,), labels=(tag,))
    [record] = records.runs.create([made])
    many = records.runs.create([make(tags=[tag]) for _ in range(3)])
    running = start(records, record)
    lines = [Line(attempt=1, number=n, time=0.0, stream="log", text=str(n)) for n in (1, 2, 3)]
    records.logs.append(record.id, lines)
    name = records.blobs.own(record.id, "result", b"x" * 5)
    cancel(records, running)
    step = partial(transitions.finish, epoch=running.epoch)
    done = records.runs.update(record.id, step)
    records.inbox.report(f"{tag}/0", {"a": "b"})
    taken = [event.id.partition(":")[2] for _, event in records.events.take(tag, block=0.01)]
    records.workers.announce(worker(tag))
    lease = records.leases.acquire(tag, tag, expected=None)
    refused = records.rejections.tallies().get(Rejected.RUN, Tally(count=0, last=0.0)).count
    records.rejections.note(Rejected.RUN)
    claimed = []
    for run in many[:2]:  # the second by a prediction
        snapshot = records.runs.snapshot(run.id, tag)
        claimed.append(records.runs.claim(snapshot, transitions.start_here, owner="w1", holder="p1"))
    return (
        done.state, done.version, records.logs.read(record.id)[0], records.blobs.get(name), records.blobs.get(blob),
        [event.kind for event in records.events.of(record.id)[0]], len(records.inbox.read(f"{tag}/0")), taken,
        len(many),
        [(run.state, run.version, run.epoch) for run in claimed],
        records.workers.beats()[tag], lease == Lease(name=tag, owner=tag, epoch=1), records.runs.count(f"tag:{tag}"),
        records.rejections.tallies()[Rejected.RUN].count - refused,
    )  # fmt: skip


def worker(name: str) -> WorkerInfo:
    offer = Offer(backends=frozenset({"local"}))
    return WorkerInfo(id=name, host="h", pid=1, offer=offer, concurrency=1, started_at=0.0)


@pytest.mark.row(16)
def test_no_answer_is_missed_whichever_is_lost(records: Records, proxy: Proxy) -> None:
    expected = life(records, "t0")
    through = open_redis(proxy.url, timeout=2.0)
    proxy.requests = 0
    life(through, "t1")
    count = proxy.requests
    assert count > 20
    for number in range(1, count + 1):
        tag = f"lost{number}"
        proxy.requests, proxy.lose = 0, number
        assert life(through, tag) == expected, f"the answer to request {number} was lost"
        assert not proxy.lose
    through.close()


def test_scripts_are_loaded_again(records: Records, raw: redis.Redis) -> None:
    expected = life(records, "a")
    raw.script_flush()
    assert life(records, "b") == expected
    raw.script_flush()
    assert len(records.runs.create([make() for _ in range(450)])) == 450


def test_a_submit_to_a_silent_server_gives_up_and_may_exist(records: Records, proxy: Proxy) -> None:
    through = open_redis(proxy.url, timeout=0.3)
    proxy.silent = True
    begun = time.monotonic()
    with pytest.raises(ServerUnavailable, match=r"did not answer within 1 s.*the run may exist") as caught:
        through.runs.create([make()], timeout=1.0)
    assert caught.value.may_exist
    assert time.monotonic() - begun < 5
    with pytest.raises(ServerUnavailable) as read:
        through.runs.get("r")
    assert not read.value.may_exist
    proxy.silent = False
    assert accept(through).state is State.QUEUED
    through.close()


def test_a_submit_whose_server_is_gone_does_not_exist(server: Server, server_url: str) -> None:
    through = open_redis(server_url)
    accept(through)
    server.kill()
    try:
        with pytest.raises(ServerUnavailable, match=r"no socket|connection refused") as caught:
            through.runs.create([make()])
        assert not caught.value.may_exist
    finally:
        server.start()
    assert through.runs.count(ALL) == 1
    assert accept(through).version == 1
    through.close()


def test_a_refused_submit_does_not_exist(records: Records, raw: redis.Redis) -> None:
    first = accept(records)
    raw.config_set("maxmemory", "1")
    try:
        for count in (1, 3):
            with pytest.raises(ServerUnavailable, match="no memory left") as caught:
                records.runs.create([make() for _ in range(count)])
            assert not caught.value.may_exist
        with pytest.raises(ServerUnavailable, match="no memory left"):
            start(records, first)
        assert records.runs.count(ALL) == 1
    finally:
        raw.config_set("maxmemory", "0")
    assert accept(records).version == 1


def test_a_replica_refuses(records: Records, raw: redis.Redis) -> None:
    raw.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(ServerUnavailable, match="read-only replica") as caught:
            accept(records)
        assert not caught.value.may_exist
    finally:
        raw.replicaof("NO", "ONE")


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a TCP port and call ``answer`` for each connection; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    client, _ = listener.accept()
                    with client:
                        answer(client)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_addresses_where_no_server_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    for url, words in (
        (f"redis://user:hush@127.0.0.1:{closed}/0", rf"nothing listens at redis://127\.0\.0\.1:{closed}/0"),
        (f"unix://:hush@{tmp_path}/none?db=0", "there is no socket at unix:///"),
        ("redis://:hush@no-such-host.invalid", r"host name of redis://no-such-host\.invalid:6379/0 can't be resolved"),
    ):
        begun = time.monotonic()
        with pytest.raises(ServerUnavailable, match=words) as caught:
            open_redis(url, timeout=1.0)
        assert "hush" not in str(caught.value)
        assert not caught.value.may_exist
        assert time.monotonic() - begun < 10


def test_another_kind_of_server_answers() -> None:
    def web(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(web) as port, pytest.raises(ServerUnavailable, match="is not Redis or Valkey"):
        open_redis(f"redis://127.0.0.1:{port}", timeout=1.0)


def test_no_server_answers() -> None:
    with listening(lambda client: time.sleep(1)) as port:
        begun = time.monotonic()
        with pytest.raises(ServerUnavailable, match=r"did not answer within 0\.2 s"):
            open_redis(f"redis://127.0.0.1:{port}", timeout=0.2)
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("url", ["http://x", "redis//x", "redis://x/db", "memory://", "sentinel://x"])
def test_urls_that_name_no_server(url: str) -> None:
    with pytest.raises(InvalidSettings, match="URL"):
        open_redis(url)


def test_a_wrong_password(server_url: str, raw: redis.Redis) -> None:
    path = server_url.removeprefix("unix://")
    raw.config_set("requirepass", "right")
    try:
        for url in (server_url, f"unix://:wrong-one@{path}", f"unix://nobody:wrong-one@{path}"):
            with pytest.raises(ServerUnavailable, match="refuses the user name or the password") as caught:
                open_redis(url)
            assert "wrong-one" not in str(caught.value)
        open_redis(f"unix://:right@{path}").close()
    finally:
        raw.config_set("requirepass", "")


def test_a_password_where_none_is_wanted(server_url: str) -> None:
    with pytest.raises(ServerUnavailable, match="refuses the user name or the password"):
        open_redis(f"unix://somebody:hush@{server_url.removeprefix('unix://')}")


def test_a_database_that_is_not_there(server_url: str) -> None:
    with pytest.raises(ServerUnavailable, match="DB index is out of range"):
        open_redis(server_url.replace("db=0", "db=99999"))


def test_a_listener_resumes_and_returns_a_notice(records: Records, raw: redis.Redis) -> None:
    listener = records.events.listen()
    record = make()
    listener.watch([record.id, "queues"])
    for _ in range(3):
        raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert listener.get(10) == ("", None)
    [accepted] = records.runs.create([record])
    assert {topic for topic, _ in (listener.get(5) or ("", None), listener.get(5) or ("", None))} == {
        record.id,
        "queues",
    }
    start(records, accepted)
    assert [event and event.kind for _, event in filter(None, (listener.get(5) for _ in range(4)))][-1] == "started"
    listener.close()


def test_watching_while_connections_are_killed(records: Records, raw: redis.Redis) -> None:
    listener = records.events.listen()
    made = [make() for _ in range(60)]
    for number, record in enumerate(made):
        if number % 6 == 0:
            raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        listener.watch([record.id])
    while listener.get(0.3):
        pass
    records.runs.create(made)
    heard = {notice[0] for notice in iter(lambda: listener.get(1), None)}
    assert heard == {record.id for record in made}
    listener.close()


def test_a_listener_survives_its_server(server: Server, server_url: str) -> None:
    records = open_redis(server_url, timeout=0.3)
    listener = records.events.listen()
    record = accept(records)
    listener.watch([record.id])
    server.kill()
    try:
        with pytest.raises(ServerUnavailable, match=r"no socket|connection refused"):
            listener.watch(["queues"])
    finally:
        server.start()
    assert listener.get(10) == ("", None)
    listener.watch(["queues"])
    start(records, record)
    assert [topic for topic, _ in filter(None, (listener.get(5) for _ in range(4)))] == [record.id] * 4
    records.close()


def test_a_listener_of_a_silent_server_is_closed_in_time(proxy: Proxy) -> None:
    records = open_redis(proxy.url, timeout=0.2)
    listener = records.events.listen()
    listener.watch(["queues"])
    proxy.silent = True
    with pytest.raises(ServerUnavailable, match="did not answer"):
        listener.watch(["more"])
    begun = time.monotonic()
    records.close()
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize("loss", [("XGROUP", "DESTROY", "{events}", "billing"), ("DEL", "{events}")])
def test_a_subscriber_whose_group_is_lost_starts_again(
    records: Records, raw: redis.Redis, server_url: str, loss: tuple[str, ...]
) -> None:
    records.events.take("billing", block=0)
    first = accept(records)
    [(position, _)] = records.events.take("billing", block=0)
    records.events.acknowledge("billing", [position])
    raw.execute_command(*(word.format(events=f"{records.instance}::events") for word in loss))
    second = accept(records)
    expected = [first.id, second.id] if loss[0] == "XGROUP" else [second.id]
    another = open_redis(server_url)  # that never took as this subscriber
    for opened in (another, records):
        assert [event.run_id for _, event in opened.events.take("billing", block=0)] == expected
    another.close()


def test_a_group_that_is_lost_while_its_subscriber_waits(records: Records, raw: redis.Redis) -> None:
    records.events.take("billing", block=0)
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.extend(records.events.take("billing", block=10)))
    thread.start()
    wait_until(lambda: any(c["cmd"] == "xreadgroup" and "b" in c["flags"] for c in raw.client_list()), "the wait")
    raw.delete(f"{records.instance}::events")
    accept(records)
    wait_until(lambda: taken, "the event")
    thread.join()


def test_keys_of_runs_that_were_not_purged_expire(records: Records, raw: redis.Redis, server_url: str) -> None:
    record = accept(records, result_ttl=100, key="k")
    records.logs.append(record.id, [Line(attempt=1, number=1, time=0.0, stream="log", text="x")])
    records.blobs.own(record.id, "result", b"x")
    mine = [key for key in raw.scan_iter() if record.id in key or key.endswith("key:k")]
    assert len(mine) == 6
    assert {raw.ttl(key) for key in mine} == {-1}
    cancel(records, record)
    assert all(86400 + 90 <= int(raw.ttl(key)) <= 86400 + 100 for key in mine)
    records.logs.append(record.id, [Line(attempt=1, number=2, time=0.0, stream="log", text="late")])
    assert all(int(raw.ttl(key)) > 0 for key in mine)
    raw.delete(*mine)  # as its clock would
    later = open_redis(server_url, clock_offset=2e5)
    assert later.runs.purge() == 1
    assert later.runs.count(ALL) == later.runs.count(EXPIRING) == 0
    assert {key.partition("::")[2] for key in raw.scan_iter("*::*")} == {"events", "queues", "routes"}
    later.close()


def test_a_shared_blob_is_dropped_when_no_run_refers_to_it(records: Records, raw: redis.Redis) -> None:
    name = records.blobs.share(b"flow")
    key = f"{records.instance}::blob:{name}"
    assert 0 < int(raw.ttl(key)) <= 3600
    first, second = records.runs.create([make(blobs=(name,)), make(blobs=(name,))])
    records.blobs.share(b"flow")
    assert raw.ttl(key) == -1
    cancel(records, first)
    assert raw.ttl(key) == -1
    cancel(records, second)
    cancel(records, second)
    assert raw.hget(key, "refs") == "0"
    assert 0 < int(raw.ttl(key)) <= 3600


def test_ten_thousand_submits_of_one_flow_keep_one_blob(records: Records, raw: redis.Redis) -> None:
    for _ in range(5):
        name = records.blobs.share(b"flow")
        records.runs.create([make(blobs=(name,)) for _ in range(2000)])
    assert len(list(raw.scan_iter(f"{records.instance}::blob:*"))) == 1
    assert raw.hget(f"{records.instance}::blob:{name}", "refs") == "10000"


def test_a_worker_restores_the_installation_id_of_an_emptied_server(records: Records, raw: redis.Redis) -> None:
    raw.flushall()
    assert not records.workers.beat("w")
    records.workers.announce(worker("w"))
    assert raw.get("dispatcher:instance") == records.instance


def test_every_key_has_the_installation_s_prefix(records: Records, raw: redis.Redis) -> None:
    life(records, "a")
    ended(records)
    prefixes = (f"{records.instance}:", "dispatcher:instance")
    assert [key for key in raw.scan_iter() if not key.startswith(prefixes)] == []
