"""Row 34 of the fault matrix: entries that the Redis users of clients and of runners write for other readers.

On a server with exactly the users of ``docs/security.md``, with real workers. They don't affect other runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from backends.fake import FakeEnvironment
from dispatcher import LocalEnvironment, flow
from dispatcher.records.redis.scripts import script
from dispatcher.records.rejections import Rejected
from dispatcher.runs import indexes
from dispatcher.runs.attempt import SHARDS
from dispatcher.runs.states import State
from tests.integration.acl_server import INSTANCE, AclServer
from tests.integration.attacker import Attacker
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.row(34), pytest.mark.timeout(300)]

StartWorker = Callable[..., Worker]

#: An id behind which a stream has no room.
LAST = f"{2**64 - 1}-{2**64 - 1}"


@flow
def says(word: str) -> str:
    print(word)  # noqa: T201
    return word


@flow
def waits(path: str) -> bytes:
    import time

    print("begun")  # noqa: T201
    while not Path(path).exists():
        time.sleep(0.02)
    print("done")  # noqa: T201
    return b"x" * 2_000_000


@pytest.fixture
def runner(acl_server: AclServer) -> Iterator[Any]:
    """A connection of the runners' user."""
    with acl_server.as_user("runner") as connection:
        yield connection


@pytest.mark.parametrize("trimming", [{}, {"maxlen": 0, "approximate": False}])
def test_inboxes_without_room_get_some(
    bench: Bench, start: StartWorker, runner: Any, service: Path, trimming: dict[str, Any]
) -> None:
    worker = start(backends=["fake"], concurrency=1)
    for number in range(SHARDS):
        runner.xadd(f"{INSTANCE}::inbox:fake/{number}", {"x": "y"}, id=LAST, **trimming)
    for word in "abc":
        run_id = bench.submit(says, {"word": word}, environment=FakeEnvironment(service))
        assert bench.ended(run_id).state is State.SUCCEEDED
    assert bench.records.rejections.tallies()[Rejected.ENTRY].count >= 1
    assert "Ignoring malformed entry" in worker.output


def test_a_report_that_found_no_room_can_be_sent_again(bench: Bench, runner: Any) -> None:
    inbox = f"{INSTANCE}::inbox:fake/3"
    runner.xadd(inbox, {"x": "y"}, id=LAST)
    words = script("report").command((), inbox, f"{INSTANCE}::report:n", 60, "run", "r1")
    with pytest.raises(redis.ResponseError, match="takes no entries"):
        runner.execute_command(*words)
    assert bench.records.inbox.repair(["fake/3"]) == ["fake/3"]

    def arrived() -> bool:
        runner.execute_command(*words)
        return [entry.get("run") for _, entry in bench.records.inbox.read("fake/3")] == [None, "r1"]

    wait_until(arrived, "the report")


def test_events_without_room_get_some(
    bench: Bench, acl_server: AclServer, start: StartWorker, attacker: Attacker
) -> None:
    """Of all runs, and of one; clients repair that as well, before a worker is there."""
    attacker.server.xadd(attacker.keys.all_events, {"x": "y"}, id=LAST)
    with acl_server.client() as client:
        with pytest.warns(match="No live worker"):
            run = client.submit(says, {"word": "a"})
        for key in (attacker.keys.all_events, attacker.keys.events(run.id), attacker.keys.logs(run.id)):
            attacker.server.xadd(key, {"x": "y"}, id=LAST)
        start(backends=["local"], concurrency=1)
        assert run.result(timeout=30) == "a"
        assert [line.text for line in run.logs()] == ["a"]
        assert client.submit(says, {"word": "b"}).result(timeout=30) == "b"
    assert bench.records.rejections.tallies()[Rejected.ENTRY].count >= 3
    assert acl_server.refusals() == []


@pytest.mark.parametrize("later", [False, True])
def test_keys_of_a_run_of_another_type(
    bench: Bench, acl_server: AclServer, start: StartWorker, attacker: Attacker, tmp_path: Path, later: bool
) -> None:
    """Its result and its lines, and those of the run that its process runs next."""
    worker = start(backends=["local"], concurrency=1)
    with acl_server.client() as client:
        run = client.submit(waits, {"path": str(tmp_path / "go")})
        if later:
            bench.until(run.id, lambda record: record.state is State.RUNNING, "its start")
            wait_until(lambda: bench.lines(run.id) == ["begun"], "its first line")
        key = attacker.keys
        for spoilt in (key.logs(run.id), key.events(run.id), key.lines(run.id), key.blobs(run.id)):
            attacker.server.expire(spoilt, 0)
            if spoilt.endswith((":logs", ":events")):
                attacker.server.hset(spoilt, "1", "x")
            else:
                attacker.server.xadd(spoilt, {"x": "y"})
        (tmp_path / "go").touch()
        assert run.result(timeout=30) == b"x" * 2_000_000
        assert bench.lines(run.id)[-1:] == ["done"]
        assert client.submit(says, {"word": "b"}).result(timeout=30) == "b"
    assert "Traceback" not in worker.output
    assert bench.records.rejections.tallies()[Rejected.ENTRY].count >= 3


def test_counts_that_are_none(bench: Bench, acl_server: AclServer, start: StartWorker, attacker: Attacker) -> None:
    """Counts of the runs that refer to a flow's code, and of rejections."""
    start(backends=["local"], concurrency=1)
    with acl_server.client() as client:
        first = client.submit(says, {"word": "a"})
        assert first.result(timeout=30) == "a"
        [digest] = bench.record(first.id).spec.blobs
        for count in ("x", "9" * 18):
            attacker.server.hset(attacker.keys.blob(digest), "refs", count)
            attacker.server.hset(attacker.keys.refusals, "entry", count)
            assert client.submit(says, {"word": "b"}).result(timeout=30) == "b"


@pytest.mark.parametrize("how", ["unsigned", "signed", "ended"])
def test_no_idle_process_is_killed_for_a_record(bench: Bench, start: StartWorker, attacker: Attacker, how: str) -> None:
    """A record that names the process as its holder: an unsigned run, an unclaimed one, one that has ended."""
    worker = start(backends=["local"], concurrency=1)
    [pid] = worker.children
    [info] = bench.records.workers.live()
    if how == "ended":
        run_id = bench.submit(says, {"word": "a"})
        ended = bench.ended(run_id)
        assert f":{pid}:" in ended.holder
        wait_until(lambda: bench.records.runs.count(indexes.owned(info.id)) == 0, "its end")
    else:
        record = bench.prepare(says, {"word": "a"}, environment=LocalEnvironment(labels=["nobody"]))
        run_id = attacker.forged(record, **({"signature": record.signature} if how == "signed" else {}))
    now = repr(bench.records.runs.now())
    stored = {
        **attacker.stored(run_id),
        b"state": b"CANCELLING",
        b"owner": info.id.encode(),
        b"started_at": now.encode(),
    }
    stored.setdefault(b"holder", f"{info.host}:{pid}:0123456789abcdef01234567".encode())
    stored |= {b"epoch": b"1", b"attempt": b"1"}
    for name in (b"outcome", b"ended_at", b"settled_at", b"expires_at"):
        stored.pop(name, None)
    attacker.write(run_id, stored, **{f"owned__{info.id}": 1.0, "open": 1.0})
    bench.ended(run_id)
    later = bench.submit(says, {"word": "b"})
    assert bench.ended(later).state is State.SUCCEEDED
    assert worker.children == [pid]
    assert "was killed" not in worker.output


def test_forged_reports_don_t_fill_the_log(bench: Bench, start: StartWorker, runner: Any, service: Path) -> None:
    """Of each kind one is logged a minute, and all are counted."""
    worker = start(backends=["fake"], concurrency=1)
    run_id, count = bench.submit(says, {"word": "a"}, environment=FakeEnvironment(service)), 3000
    assert bench.ended(run_id).state is State.SUCCEEDED
    lines = worker.output.count("\n")
    with runner.pipeline(transaction=False) as pipe:
        for number in range(count):
            name = run_id if number % 2 else f"forged{number}"
            pipe.xadd(f"{INSTANCE}::inbox:fake/{number % SHARDS}", {"run": name, "body": "{}", "mac": "x"})
        pipe.execute()

    def counted() -> int:
        tally = bench.records.rejections.tallies().get(Rejected.REPORT)
        return tally.count if tally else 0

    wait_until(lambda: counted() >= count, "all of them counted", timeout=60)
    assert worker.output.count("\n") - lines < 20
    run_id = bench.submit(says, {"word": "b"}, environment=FakeEnvironment(service))
    assert bench.ended(run_id).state is State.SUCCEEDED
