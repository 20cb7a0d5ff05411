"""Blobs, workers, leases, queues, reports, rejections and users: one suite for every implementation of the records."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from functools import partial

import pytest

from dispatcher.errors import LeasePassed
from dispatcher.records.base import Records
from dispatcher.records.leases import Lease
from dispatcher.records.rejections import Rejected, Tally
from dispatcher.records.static import StaticObject
from dispatcher.records.users import AttemptScope
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import transitions
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.states import Cause
from tests.conformance.conftest import Store
from tests.conformance.specs import accept, ended, finish, make, start
from tests.waiting import wait_until

LARGE = bytes(range(256)) * (9 * 2**20 // 256) + b"end"


@pytest.mark.parametrize("data", [b"", b"small", b"x" * 100_000, LARGE], ids=["empty", "small", "middle", "large"])
def test_a_shared_blob_is_named_by_its_content(records: Records, data: bytes) -> None:
    name = records.blobs.share(data)
    assert name == hashlib.sha256(data).hexdigest() == records.blobs.share(data)
    assert records.blobs.has(name)
    assert records.blobs.get(name) == data


@pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "large"])
def test_a_runs_own_blob(records: Records, data: bytes) -> None:
    record = accept(records)
    name = records.blobs.own(record.id, "result-1", data)
    assert records.blobs.has(name)
    assert records.blobs.get(name) == data
    records.blobs.own(record.id, "result-1", b"again")
    assert records.blobs.get(name) == b"again"


@pytest.mark.parametrize("name", ["0" * 64, "r1/result-1", ""])
def test_an_unknown_blob(records: Records, name: str) -> None:
    assert not records.blobs.has(name)
    with pytest.raises(KeyError):
        records.blobs.get(name)


def test_a_run_s_own_blobs_are_purged_with_it(store: Store) -> None:
    record = accept(store.records, result_ttl=10)
    name = store.records.blobs.own(record.id, "result", b"x")
    finish(store.records, start(store.records, record))
    later = store.later(20)
    assert later.blobs.has(name)
    later.runs.purge()
    assert not later.blobs.has(name)


def test_a_shared_blob_outlives_one_of_two_runs(records: Records) -> None:
    name = records.blobs.share(b"flow")
    first, second = records.runs.create([make(blobs=(name,)), make(blobs=(name,))])
    finish(records, start(records, first))
    assert records.blobs.has(name)
    again = start(records, second)
    finish(records, again, cause=Cause.USER_ERROR)
    assert records.blobs.get(name) == b"flow"  # for a while yet
    assert accept(records, blobs=(name,)).spec.blobs == (name,)


def info(name: str, **changes: object) -> WorkerInfo:
    offer = Offer(backends=frozenset({"local"}), labels=frozenset({"gpu"}))
    fields: dict[str, object] = {"host": "h", "pid": 7, "offer": offer, "concurrency": 2, "started_at": 1.5}
    return WorkerInfo(id=name, **{**fields, "queues": ("local",), "data": {"a": [1]}, **changes})  # type: ignore[arg-type]


def test_a_worker_registers_and_beats(records: Records) -> None:
    assert not records.workers.beat("w1")
    records.workers.announce(info("w1"))
    assert records.workers.live() == [info("w1")]
    assert records.workers.beats() == {"w1": 0}
    assert records.workers.beat("w1")
    assert records.workers.beat("w1")
    records.workers.announce(info("w1", queues=("local", "remote")))
    assert records.workers.beats() == {"w1": 2}
    assert records.workers.live()[0].queues == ("local", "remote")


def test_a_removed_worker_s_beat_returns_false(records: Records) -> None:
    records.workers.announce(info("w1"))
    records.workers.announce(info("w2"))
    assert records.workers.remove("w1")
    assert records.workers.remove("w1")
    assert not records.workers.beat("w1")
    assert records.workers.beats() == {"w2": 0}
    assert [worker.id for worker in records.workers.live()] == ["w2"]


def test_every_owner_of_a_run_is_observed(records: Records) -> None:
    record = start(records, accept(records), owner="w1")
    assert records.workers.beats() == {"w1": 0}
    assert not records.workers.remove("w1")
    assert records.workers.beats() == {"w1": 0}
    finish(records, record)
    assert records.workers.remove("w1")
    assert records.workers.beats() == {}


def test_a_worker_is_live_while_it_beats(store: Store) -> None:
    store.records.workers.announce(info("w1"))
    later = store.later(60)
    assert later.workers.live() == []
    assert later.workers.live(within=90) == [info("w1")]
    assert later.workers.beat("w1")
    assert later.workers.live() == [info("w1")]


def test_a_lease_has_one_owner(records: Records) -> None:
    mine = records.leases.acquire("shard:1", "a", expected=None)
    assert mine == Lease(name="shard:1", owner="a", epoch=1)
    assert records.leases.acquire("shard:1", "b", expected=None) is None
    assert records.leases.acquire("shard:1", "a", expected=None) == mine  # as after a lost reply
    assert records.leases.held("shard:") == {"shard:1": mine}
    assert records.leases.held("other:") == {}


def test_a_lease_is_taken_over_by_one_worker(records: Records) -> None:
    first = records.leases.acquire("s", "a", expected=None)
    second = records.leases.acquire("s", "b", expected=first)
    assert second == Lease(name="s", owner="b", epoch=2)
    assert records.leases.acquire("s", "b", expected=first) == second
    assert records.leases.acquire("s", "c", expected=first) is None
    assert first is not None
    records.leases.release(first)  # no longer ours to give
    assert records.leases.held("") == {"s": second}


def test_the_epoch_of_a_lease_survives_its_release(records: Records) -> None:
    first = records.leases.acquire("s", "a b", expected=None)
    assert first is not None
    records.leases.release(first)
    records.leases.release(first)
    assert records.leases.held("") == {}
    assert records.leases.acquire("s", "b", expected=first) is None
    assert records.leases.acquire("s", "b", expected=None) == Lease(name="s", owner="b", epoch=2)


def test_queues_are_registered_by_their_use(records: Records) -> None:
    assert records.queues.known() == {}
    record = accept(records, labels=("b", "a"))
    assert records.queues.known() == {"local:a+b": (Route("local", ("b", "a")), record.created_at)}
    again = accept(records, labels=("a", "b"))
    assert records.queues.known()["local:a+b"][1] == again.created_at


def test_an_unused_queue_is_retired_and_registered_again(store: Store) -> None:
    ended(store.records)
    waiting = accept(store.records, labels=("busy",))
    assert store.records.queues.retire(unused_for=60) == []
    later = store.later(100)
    assert later.queues.retire(unused_for=60) == ["local"]
    assert later.queues.retire(unused_for=60) == []
    assert list(later.queues.known()) == ["local:busy"]
    assert later.queues.passed() == {}
    accept(later)
    assert set(later.queues.known()) == {"local", "local:busy"}
    start(later, waiting)
    even_later = store.later(200)
    assert set(even_later.queues.retire(unused_for=60)) >= {"local:busy"}


def test_a_static_object_is_known_from_before_its_creation_until_it_is_forgotten(store: Store) -> None:
    thing = StaticObject(backend="fake", place='eu "1"', name="flows/secret-1")
    assert store.records.static.known() == {}
    store.records.static.expect(thing)
    assert 0 <= store.records.static.known()[thing] < 60
    assert store.records.static.age(thing, "w1") is None
    later = store.later(100)
    assert 100 <= later.static.known()[thing] < 160
    assert not later.static.forget(thing, unused_for=600)
    assert list(later.static.known()) == [thing]
    assert later.static.forget(thing, unused_for=60)
    assert later.static.forget(thing, unused_for=60)  # as after a lost reply
    assert later.static.known() == {}


def test_each_worker_notes_static_objects_by_itself_and_any_note_is_a_use(store: Store) -> None:
    thing = StaticObject(backend="fake", place="", name="secret-1")
    store.records.static.note(thing, "w1")
    later = store.later(100)
    later.static.note(thing, "w2")
    ages = [later.static.age(thing, worker) for worker in ("w1", "w2", "w3")]
    assert ages[0] is not None
    assert ages[1] is not None
    assert 100 <= ages[0] < 160
    assert 0 <= ages[1] < 60
    assert ages[2] is None
    assert not later.static.forget(thing, unused_for=60)
    store.records.static.note(thing, "w1")  # its clock is behind: the later use counts
    assert later.static.known()[thing] < 60


def test_users_are_listed_until_they_are_removed(records: Records) -> None:
    assert records.users.allowed()
    assert records.users.known() == []
    reach = AttemptScope(run_id="run1", attempt=1, shard="local/3", blobs=("a" * 64,))
    name = records.users.make(reach, "password")
    assert records.users.make(reach, "password") == name
    records.users.make(replace(reach, attempt=2), "password")
    assert set(records.users.known()) == {("run1", 1), ("run1", 2)}
    records.users.remove([("run1", 1), ("run1", 3)])
    assert records.users.known() == [("run1", 2)]
    records.users.remove([("run1", 2)])
    records.users.remove([])
    assert records.users.known() == []


def test_reports_come_in_order_and_are_dropped_up_to_a_position(records: Records) -> None:
    for number in range(5):
        records.inbox.report("s/0", {"n": str(number), "text": "ü"})
    records.inbox.report("other/0", {"n": "9"})
    reports = records.inbox.read("s/0")
    times = [float(entry["time"]) for _, entry in reports]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(records.runs.now(), abs=30.0), "by the server's clock"
    assert [(entry["n"], entry["text"]) for _, entry in reports] == [(str(number), "ü") for number in range(5)]
    assert records.inbox.read("s/0", after=reports[1][0], limit=2) == reports[2:4]
    records.inbox.drop("s/0", until=reports[2][0])
    assert records.inbox.read("s/0") == reports[3:]
    assert records.inbox.read("nobody/0", block=0.05) == []
    records.inbox.drop("s/0", until=reports[4][0])
    assert records.inbox.read("s/0") == []
    assert len(records.inbox.read("other/0")) == 1


def test_waiting_for_a_report(store: Store) -> None:
    reports: list[object] = []
    reader = store.another()
    thread = threading.Thread(target=lambda: reports.extend(reader.inbox.read("s/0", block=8)))
    thread.start()
    store.records.inbox.report("s/0", {"a": "b"})
    wait_until(lambda: reports, "the report")
    thread.join()


def test_a_change_under_a_lost_lease_is_refused(records: Records) -> None:
    """The script that writes checks the lease, so that a process that was frozen writes nothing."""
    run = accept(records)
    first = records.leases.acquire("fake/1", "a", expected=None)
    assert first is not None
    ring = partial(transitions.ring_again)
    record = records.runs.update(run.id, ring, lease=first)
    assert record.rings == 2
    records.leases.acquire("fake/1", "b", expected=first)
    with pytest.raises(LeasePassed, match=r"fake/1 has another holder now: epoch 1 is over"):
        records.runs.update(run.id, ring, lease=first)
    assert records.runs.get(run.id)[0].rings == 2
    with pytest.raises(LeasePassed):
        records.runs.update(run.id, ring, lease=Lease(name="fake/2", owner="a", epoch=1))


def test_waiting_for_an_entry_of_any_shard(store: Store) -> None:
    inbox = store.records.inbox
    assert not inbox.wait([], block=0.05)
    assert not inbox.wait(["s/1", "s/2"], block=0.05)
    heard: list[bool] = []
    reader = store.another()
    thread = threading.Thread(target=lambda: heard.append(reader.inbox.wait(["s/1", "s/2"], block=20)))
    thread.start()
    inbox.report("s/2", {"a": "b"})
    thread.join(20)
    assert heard == [True]
    inbox.drop("s/2", until=inbox.read("s/2")[0][0])
    assert not inbox.wait(["s/1", "s/2"], block=0)


def test_rejections_are_counted_by_kind(store: Store) -> None:
    assert store.records.rejections.tallies() == {}
    before = store.records.runs.now()
    for kind in (Rejected.RUN, Rejected.REPORT, Rejected.REPORT):
        store.records.rejections.note(kind)
    tallies = store.records.rejections.tallies()
    assert {kind: tally.count for kind, tally in tallies.items()} == {Rejected.RUN: 1, Rejected.REPORT: 2}
    assert before <= tallies[Rejected.RUN].last <= tallies[Rejected.REPORT].last <= store.records.runs.now()
    later = store.later(1000)
    later.rejections.note(Rejected.RUN)
    assert later.rejections.tallies()[Rejected.RUN].last >= before + 1000
    assert later.rejections.tallies()[Rejected.REPORT] == Tally(count=2, last=tallies[Rejected.REPORT].last)
