"""Functions succeed whatever values their keys have, and incomplete records are ignored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import ServerUnavailable, UnknownRun
from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import Keys
from dispatcher.records.rejections import Rejected
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import transitions
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Offer
from dispatcher.runs.states import State
from tests.conformance.products import SERVERS, emptied, served, state
from tests.conformance.specs import accept, cancel, ended, finish, make, start

pytestmark = pytest.mark.row(34)

LAST = f"{2**64 - 1}-{2**64 - 1}"

NO_NUMBERS = ["", "many", "1.5", "nan", "inf", "1e400", "0x10", " 1", str(2**63 - 1), "9" * 400]


@pytest.fixture(scope="module", params=SERVERS, ids=lambda path: Path(path).name)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server for this module, of each installed product."""
    with served(request.param) as address:
        yield address


@pytest.fixture
def raw(url: str) -> Iterator[Any]:
    """A plain connection to the server, which is empty and has no functions."""
    with emptied(url) as connection:
        yield connection


@pytest.fixture
def records(url: str, raw: Any) -> Iterator[Records]:
    opened = open_redis(url)
    opened.runs.check = lambda record, now: None  # every signature holds
    yield opened
    opened.close()


@pytest.fixture
def keys(records: Records) -> Keys:
    return Keys(records.instance)


def _exhaust(raw: Any, key: str) -> None:
    raw.xadd(key, {"fact": "{}", "time": "1"}, id=LAST)


def _replace(raw: Any, key: str) -> None:
    raw.delete(key)
    raw.set(key, "another type")


def _lines(*numbers: int) -> list[Line]:
    return [Line(attempt=1, number=number, time=0.0, stream="log", text=str(number)) for number in numbers]


def _kinds(records: Records, run: Record) -> list[str]:
    return [str(event.kind) for event in records.events.of(run.id)[0]]


def _facts(raw: Any, key: str) -> list[str]:
    """Return the kinds of a stream's events, without the entries that spoilt it."""
    facts = [json.loads(entry[b"fact"]) for _, entry in raw.xrange(key)]
    return [fact["kind"] for fact in facts if fact]


def _stored(records: Records, run: Record) -> list[int]:
    return [line.number for line in records.logs.read(run.id)[0]]


def _reports(records: Records, shard: str) -> list[str]:
    """Return the runs of an inbox's reports, without the entries that spoilt it."""
    return [entry["run"] for _, entry in records.inbox.read(shard) if "run" in entry]


SPOIL = pytest.mark.parametrize("spoil", [_exhaust, _replace], ids=["exhausted", "of another type"])


# Streams


@SPOIL
def test_a_run_ends_despite_spoilt_streams(
    records: Records, raw: Any, keys: Keys, spoil: Callable[[Any, str], None]
) -> None:
    made = make(key="k")
    spoil(raw, keys.all_events)
    spoil(raw, keys.events(made.id))
    [run] = records.runs.create([made])
    assert _kinds(records, run) == ["queued"]
    assert _facts(raw, keys.all_events) == ["queued"]

    for key in (keys.all_events, keys.events(run.id)):
        spoil(raw, key)
    running = start(records, run)
    assert running.state is State.RUNNING
    for key in (keys.all_events, keys.events(run.id)):
        spoil(raw, key)
    assert finish(records, running).state is State.SUCCEEDED
    assert _kinds(records, run)[-1] == "exited"


@SPOIL
def test_lines_are_stored_despite_a_spoilt_stream(
    records: Records, raw: Any, keys: Keys, spoil: Callable[[Any, str], None]
) -> None:
    run = accept(records)
    records.logs.append(run.id, _lines(1, 2))
    spoil(raw, keys.logs(run.id))
    records.logs.append(run.id, _lines(2, 3, 4))
    before = [] if spoil is _replace else [1, 2]
    assert _stored(records, run) == [*before, 3, 4]


@SPOIL
def test_a_report_arrives_once_in_a_spoilt_inbox(
    records: Records, raw: Any, keys: Keys, spoil: Callable[[Any, str], None]
) -> None:
    spoil(raw, keys.inbox("fake/1"))
    records.inbox.report("fake/1", {"run": "r"})
    assert _reports(records, "fake/1") == ["r"]


@SPOIL
def test_a_durable_subscriber_receives_events_after_its_stream_was_spoilt(
    records: Records, raw: Any, keys: Keys, spoil: Callable[[Any, str], None]
) -> None:
    assert records.events.take("billing", block=0) == []
    spoil(raw, keys.all_events)
    run = accept(records)
    assert {event.run_id for _, event in records.events.take("billing", block=0)} == {run.id}


@pytest.fixture
def runner(records: Records, raw: Any, url: str) -> Iterator[Records]:
    """Records of a user who may only add to inboxes."""
    records.inbox.report("fake/1", {"run": "r"})  # the functions are loaded
    raw.execute_command(
        *("ACL", "SETUSER", "limited", "reset", "on", ">p", "%R~*", "&*", "+@all"),
        *(f"({pattern})" for pattern in ("~*::inbox:* +xadd", "~*::report:* +set", "~*::claim:* +get +set")),
    )
    opened = open_redis(url.replace("unix://", "unix://limited:p@"))
    yield opened
    opened.close()


@SPOIL
def test_a_report_that_could_not_be_added_may_be_sent_again(
    records: Records, runner: Records, raw: Any, keys: Keys, spoil: Callable[[Any, str], None]
) -> None:
    """A runner can't recreate an inbox. It is told to try again, and the report isn't marked as added."""
    spoil(raw, keys.inbox("fake/2"))
    with pytest.raises(ServerUnavailable, match="takes no entries until a worker"):
        runner.inbox.report("fake/2", {"run": "r"})
    assert all(raw.pttl(key) <= 1 for key in raw.keys("*::report:*") if raw.get(key) == b"0")
    records.inbox.report("fake/2", {"run": "r"})
    runner.inbox.report("fake/2", {"run": "again"})
    assert _reports(records, "fake/2") == ["r", "again"]


@SPOIL
def test_a_claim_that_could_not_be_reported_does_not_stand(
    records: Records, runner: Records, raw: Any, keys: Keys, spoil: Callable[[Any, str], None]
) -> None:
    run = accept(records)
    raw.hset(keys.run(run.id), mapping={"state": "PENDING", "attempt": "1"})
    spoil(raw, keys.inbox("fake/2"))
    claim = partial(runner.runs.claim_attempt, run.id, attempt=1, holder="h", shard="fake/2", entry={"run": run.id})
    with pytest.raises(ServerUnavailable, match="takes no entries until a worker"):
        claim()
    assert not raw.exists(keys.claim(run.id, 1))
    assert records.inbox.repair(["fake/2"]) == ["fake/2"]
    assert claim()[0].id == run.id
    assert _reports(records, "fake/2") == [run.id]


# Counters


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_an_invalid_count_of_references_starts_again(records: Records, raw: Any, keys: Keys, number: str) -> None:
    blob = records.blobs.share(b"flow")
    raw.hset(keys.blob(blob), "refs", number)
    run = accept(records, blobs=(blob,))
    raw.hset(keys.blob(blob), "refs", number)
    if number != str(2**63 - 1):
        assert records.blobs.share(b"flow") == blob
        records.runs.create([make(blobs=(blob,)) for _ in range(2)])
    raw.hset(keys.blob(blob), "refs", number)
    assert finish(records, start(records, run)).terminal
    assert records.blobs.get(blob) == b"flow"


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_an_invalid_last_line_number_starts_again(records: Records, raw: Any, keys: Keys, number: str) -> None:
    run = accept(records)
    raw.hset(keys.lines(run.id), "1", number)
    records.logs.append(run.id, _lines(1, 2))
    records.logs.append(run.id, _lines(2, 3))
    assert _stored(records, run) == [1, 2, 3]


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_invalid_counters_of_beats_and_rejections_start_again(
    records: Records, raw: Any, keys: Keys, number: str
) -> None:
    offer = Offer(backends=frozenset({"local"}))
    records.workers.announce(WorkerInfo(id="w", host="h", pid=1, offer=offer, concurrency=1, started_at=1.0))
    raw.hset(keys.beats, "w", number)
    raw.hset(keys.refusals, str(Rejected.ENTRY), number)
    assert records.workers.beat("w")
    records.rejections.note(Rejected.ENTRY)
    assert records.workers.beats() == {"w": 1}
    assert records.rejections.tallies()[Rejected.ENTRY].count == 1


# Keys of another type


def test_a_run_s_keys_of_another_type_are_replaced(records: Records, raw: Any, keys: Keys) -> None:
    made = make()
    for key in keys.of_run(made.id):
        _replace(raw, key)
    [run] = records.runs.create([made])
    records.logs.append(run.id, _lines(1))
    name = records.blobs.own(run.id, "result", b"large")
    assert records.runs.get(run.id)[0] == run
    assert (_kinds(records, run), _stored(records, run)) == (["queued"], [1])
    assert records.blobs.get(name) == b"large"


def test_common_keys_of_another_type_are_left_and_runs_go_on(records: Records, raw: Any, keys: Keys) -> None:
    shared = [keys.index("all"), keys.index("open"), keys.index("state:SUCCEEDED"), keys.beats, keys.passed]
    for key in shared:
        _replace(raw, key)
    done = ended(records, key="k")
    assert records.runs.get(done.id)[0] == done
    assert [raw.get(key) for key in shared] == [b"another type"] * len(shared)
    assert done.id in {run_id for run_id, _ in records.runs.members("flow:count")}


def test_a_queue_key_of_another_type_costs_only_latency(url: str, raw: Any) -> None:
    class Here:
        """Pushes doorbells by the records' script."""

        def message(self, ring: Any) -> tuple[str, bytes]:
            return "i:local", b"{}"

        def publish(self, rings: Any) -> None: ...

        def depth(self, queue: str) -> int:
            return 0

    raw.set("i:local", "no list")
    records = open_redis(url, bell=Here())
    run = accept(records)
    assert cancel(records, run).terminal
    assert raw.get("i:local") == b"no list"
    records.close()


# Earlier runs


def test_only_a_complete_record_with_the_key_is_an_earlier_run(records: Records, raw: Any, keys: Keys) -> None:
    other = accept(records, key="other")
    for number, spoilt in enumerate(("absent", other.id, f"{other.id}:events", "../x", "", "x" * 10**6, "run:")):
        key = f"key {number}"
        raw.set(keys.idempotency(key), spoilt)
        run = accept(records, key=key)
        assert run.key == key
        assert raw.get(keys.idempotency(key)) == run.id.encode()
        assert accept(records, key=key).id == run.id


def test_an_incomplete_record_is_no_earlier_run(records: Records, raw: Any, keys: Keys) -> None:
    for number, fields in enumerate(({"id": "r-half"}, {"key": "key"}, {"id": "r-other", "key": "key"})):
        raw.delete(keys.run("r-half"))
        raw.hset(keys.run("r-half"), mapping=fields)
        raw.set(keys.idempotency("key"), "r-half")
        run = accept(records, key="key")
        assert run.id != "r-half", number
        raw.delete(keys.run(run.id))


def test_an_idempotency_key_of_another_type_is_ignored(records: Records, raw: Any, keys: Keys) -> None:
    raw.hset(keys.idempotency("k"), "a", "b")
    run = accept(records, key="k")
    assert accept(records, key="k").id == run.id


@pytest.mark.parametrize("denied", ["xadd", "zadd", "hincrby"])
def test_a_run_whose_submit_failed_halfway_is_not_found(records: Records, raw: Any, url: str, denied: str) -> None:
    blob = records.blobs.share(b"flow")
    accept(records)  # the functions are loaded, the queue is known
    before = state(raw)
    raw.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">p", "~*", "&*", "+@all", f"-{denied}")
    submitter = open_redis(url.replace("unix://", "unix://limited:p@"))
    made = make(key="k", blobs=(blob,))
    with pytest.raises(ServerUnavailable):
        submitter.runs.create([made])
    submitter.close()
    assert not {key for key in state(raw).keys() - before.keys() if b":run:" in key or b":key:" in key}
    with pytest.raises(UnknownRun):
        records.runs.get(made.id)
    [run] = records.runs.create([made])
    assert run.id == made.id


def test_a_claim_of_another_type_does_not_prevent_a_change(records: Records, raw: Any, keys: Keys) -> None:
    run = accept(records, start_within=10.0)
    raw.hset(keys.claim(run.id, 1), "a", "b")
    assert records.runs.update(run.id, transitions.request_cancel).terminal
