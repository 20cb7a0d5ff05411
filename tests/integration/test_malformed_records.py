"""Row 34 of the fault matrix: a malformed record affects nothing but itself, on a real server with real workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, LocalEnvironment, UnknownRun
from dispatcher.broker.doorbell import envelope
from dispatcher.errors import UnreadableRun
from dispatcher.records.effects import UNREADABLE
from dispatcher.records.rejections import Rejected
from dispatcher.runs import indexes
from dispatcher.runs.change import Ring
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from tests.integration.intruder import DEEP, Intruder, one, tally, waits
from tests.integration.workers import Bench, Worker
from tests.unit.command import call
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.row(34),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:No live worker"),
]

StartWorker = Callable[..., Worker]


def spec_but(template: dict[bytes, bytes], **changes: Any) -> dict[bytes, bytes]:
    """Return a record with another spec."""
    return {**template, b"spec_bytes": json.dumps({**json.loads(template[b"spec_bytes"]), **changes}).encode()}


def records_of(template: dict[bytes, bytes]) -> dict[str, dict[bytes, bytes]]:
    """Return unreadable records, and records with an unreadable spec."""
    fields: dict[str, bytes] = {
        "version": b"x",
        "attempt": b"9" * 5000,
        "epoch": b"-1",
        "rings": b"1e9",
        "outcome": b"[]",
        "outcome ": DEEP,
        "created_at": b"nan",
        "queued_at": b"inf",
        "rung_at": b"",
        "due_at": b"1e400",
        "ended_at": b"soon",
        "leftovers": b"{}",
        "leftovers ": b"[1]",
        "leftovers  ": b'[{"attempt": "x"}]',
        "times": b"[1]",
        "times ": b'{"1": {"created": NaN}}',
        "handle": b"3",
        "request": b'{"shard": []}',
        "state": b"\xff\xfe",
        "owner": b"\xff" * 9000,
        "last_message": b"\xff",
    }
    broken = {name: {**template, name.strip().encode(): raw} for name, raw in fields.items()}
    without = {
        f"no {name}": {key: value for key, value in template.items() if key != name.encode()}
        for name in ("state", "signature")
    }
    specs: dict[str, dict[bytes, bytes]] = {
        "deep spec": {**template, b"spec_bytes": DEEP},
        "spec not utf-8": {**template, b"spec_bytes": b"\xff\xfe"},
        "spec a list": {**template, b"spec_bytes": b"[1]"},
        "spec empty": {**template, b"spec_bytes": b""},
        "endless retries": spec_but(template, options={"retries": {"count": 10**12}}),
        "retries a word": spec_but(template, options={"retries": "x"}),
        "timeout a list": spec_but(template, options={"timeout": []}),
        "labels lists": spec_but(template, route={"backend": "local", "labels": [["a"]], "scope": ""}),
        "backend a list": spec_but(template, route={"backend": [], "labels": [], "scope": ""}),
        "no parameters": spec_but(template, parameters=None),
        "flow a surrogate": spec_but(template, flow="\ud800"),
    }  # fmt: skip
    return {**broken, **without, **specs}


@pytest.mark.parametrize("kind", ["malformed", "of another release", "missing", "of another type"])
def test_records(
    bench: Bench, start_worker: StartWorker, client: Dispatcher, intruder: Intruder, server_url: str, kind: str
) -> None:
    """Neither ``list``, retention, due times nor doorbells of other runs are blocked by any entry of their indexes."""
    worker = start_worker(concurrency=1)
    template = intruder.template()
    poison = records_of(template)
    if kind == "of another release":
        poison = {f"run {n}": {**template, b"state": b"PAUSED", b"hue": b"blue"} for n in range(30)}
        poison = {
            name: {key: value for key, value in fields.items() if key != b"ended_at"} for name, fields in poison.items()
        }
    elif kind != "malformed":
        poison = {name: {} for name in poison}
    now = bench.records.runs.now()
    ids = {name: f"poison{number}" for number, name in enumerate(poison)}
    everywhere = {
        indexes.ALL: now + 60, indexes.OPEN: now + 60, indexes.DUE: 1.0, indexes.EXPIRING: 1.0,
        indexes.waiting("local"): 1.0, indexes.owned("dead"): 1.0,
    }  # fmt: skip
    intruder.server.hset(intruder.keys.beats, "dead", 3)
    for name, fields in poison.items():
        intruder.record(ids[name], fields, index=everywhere)
        if kind == "of another type":
            intruder.server.set(intruder.keys.run(ids[name]), "x")
    intruder.record("old", {**template, b"ended_at": b"1.0", b"created_at": b"1.0"}, index={indexes.EXPIRING: 2.0})

    again = bench.prepare(one)
    bench.records.runs.create([again])
    late = client.submit(one, environment=LocalEnvironment(labels=["nobody"]), start_within=0.5)
    assert client.submit(one).result(timeout=30) == 1
    wait_until(lambda: not intruder.server.exists(intruder.keys.run("old")), "the retention of another run")
    bench.until(late.id, lambda record: record.state is State.TIMED_OUT, "the due time of another run")
    bench.ended(again.id)
    listing = call("list", "--url", server_url, "--json", "--limit", "100")
    assert listing.exit_code == 0, listing
    listed = {run["id"] for run in json.loads(listing.output)}
    assert {again.id, late.id} <= listed

    if kind == "of another release":
        assert set(ids.values()) <= listed
        assert intruder.members(indexes.DUE) >= set(ids.values())
        for run_id in ids.values():
            assert bench.record(run_id).state is State.UNKNOWN
            assert intruder.server.hget(intruder.keys.run(run_id), "hue") == b"blue"
        assert tally(bench) == 0
    else:
        for index in everywhere.keys() - {indexes.ALL, indexes.OPEN}:
            wait_until(
                lambda index=index: not {ids[name] for name in unread(kind, poison)} & intruder.members(index),  # type: ignore[misc]
                f"none of them left in the index {index}",
                timeout=60,
            )
    if kind in {"malformed", "of another type"}:
        assert tally(bench) >= len(unread(kind, poison))
        assert worker.output.count("Ignoring malformed entry") >= 1
        status = call("status", "--url", server_url)
        assert "malformed entries" in status.output
    assert worker.process.poll() is None


def unread(kind: str, poison: dict[str, Any]) -> list[str]:
    """Return the ids of unreadable records; if only the spec is unreadable, the run is ended."""
    if kind != "malformed":
        return list(poison)
    return [
        name
        for name in poison
        if name in {"version", "outcome", "created_at", "no state", "leftovers", "times", "state"}
    ]


def test_a_record_that_cannot_be_read_goes_a_week_after_that_was_noticed(
    bench: Bench, start_worker: StartWorker, intruder: Intruder
) -> None:
    start_worker(concurrency=1)
    template = intruder.template()
    key = intruder.keys.run("poison")
    intruder.server.persist(key)
    intruder.record("poison", {**template, b"version": b"x"}, index={indexes.DUE: 1.0})
    wait_until(lambda: not intruder.members(indexes.DUE), "the entry to be taken out")
    assert UNREADABLE - 60 < intruder.server.ttl(key) <= UNREADABLE
    with pytest.raises(UnreadableRun, match="can't be read"):
        bench.record("poison")
    assert issubclass(UnreadableRun, UnknownRun)


def test_a_run_whose_spec_cannot_be_read_is_ended(bench: Bench, start_worker: StartWorker, intruder: Intruder) -> None:
    start_worker(concurrency=1)
    waiting = bench.prepare(one)
    broken = Record(id=waiting.id, spec_bytes=DEEP, signature=waiting.signature, spec_digest="d")
    bench.records.runs.create([broken])
    ended = bench.ended(waiting.id)
    assert ended.state is State.CRASHED
    intruder.server.zadd(intruder.keys.index(indexes.EXPIRING), {waiting.id: 1.0})
    intruder.server.hset(intruder.keys.run(waiting.id), "ended_at", "1.0")
    wait_until(lambda: not intruder.server.exists(intruder.keys.run(waiting.id)), "its retention")
    assert waiting.id not in intruder.members(indexes.ALL)


def test_a_run_that_stands_in_the_index_of_ends_too_early_is_not_removed(
    bench: Bench, start_worker: StartWorker, intruder: Intruder, tmp_path: Path
) -> None:
    start_worker(concurrency=2)
    path = tmp_path / "go"
    running = bench.submit(waits, {"path": str(path)})
    bench.until(running, lambda record: record.state is State.RUNNING, "its start")
    done = intruder.template()[b"id"].decode()
    for run_id in (running, done):
        intruder.server.zadd(intruder.keys.index(indexes.EXPIRING), {run_id: 1.0})
    key = intruder.keys.index(indexes.EXPIRING)
    wait_until(lambda: intruder.server.zscore(key, running) is None, "the open run to leave the index")
    wait_until(lambda: (intruder.server.zscore(key, done) or 0) > 1e9, "the ended run's own time")
    path.touch()
    assert bench.ended(running).state is State.SUCCEEDED


def test_what_a_run_requires_leaves_it_to_others(bench: Bench, start_worker: StartWorker, client: Dispatcher) -> None:
    """It is neither failed nor started, whatever way its doorbell takes, and explains what it waits for."""
    from dataclasses import replace

    start_worker(concurrency=1)
    assert client.submit(one).result(timeout=30) == 1
    waiting = bench.prepare(one)
    raw = replace(waiting.spec, requires=("mask",)).to_bytes()
    newer = Record(
        id=waiting.id, spec_bytes=raw, signature=bench.keys.sign(waiting.id, raw), spec_digest=waiting.spec_digest
    )
    bench.records.runs.create([newer])
    for _ in range(3):
        assert client.submit(one).result(timeout=30) == 1
    rung_again = bench.until(newer.id, lambda record: record.rings > 1, "another ring")
    assert (rung_again.state, rung_again.epoch) == (State.QUEUED, 0)
    assert "It requires mask" in client.explain(newer.id)[0]
    assert Rejected.DOORBELL not in bench.records.rejections.tallies()


def test_a_run_that_was_taken_by_a_wrong_guess_is_given_back(
    bench: Bench, start_worker: StartWorker, intruder: Intruder
) -> None:
    """Its record was changed to a kind that requires nothing: it isn't failed either."""
    from dataclasses import replace

    start_worker(concurrency=1, timing={"bell_lost": 60.0})
    kind = b""
    for _ in range(3):  # the worker learns what runs of the kind look like
        done = bench.submit(one)
        kind = intruder.server.hget(intruder.keys.run(done), "kind") or b""
        bench.ended(done)
    assert kind
    waiting = bench.prepare(one)
    raw = replace(waiting.spec, requires=("mask",)).to_bytes()
    record = Record(
        id=waiting.id, spec_bytes=raw, signature=bench.keys.sign(waiting.id, raw), spec_digest=waiting.spec_digest
    )
    queue = f"{bench.records.instance}:local"
    with intruder.server.pipeline() as pipe:
        like = intruder.server.hgetall(intruder.keys.run(done))
        fresh = {
            **{name: like[name] for name in (b"created_at", b"queued_at", b"rung_at")},
            b"id": record.id, b"spec_bytes": raw, b"signature": record.signature, b"spec_digest": record.spec_digest,
            b"state": "QUEUED", b"version": "1", b"rings": "1", b"kind": kind,
        }  # fmt: skip
        pipe.hset(intruder.keys.run(record.id), mapping=fresh)
        ring = Ring(run_id=record.id, task="dispatcher.execute", flow=waiting.spec.flow, route=Route("local"))
        pipe.lpush(queue, envelope(ring))
        pipe.execute()
    given_back = bench.until(record.id, lambda record: record.version > 2, "the claim, and the way back")
    assert (given_back.state, given_back.owner, given_back.attempt, given_back.started_at) == (
        State.QUEUED,
        "",
        1,
        None,
    )
    assert given_back.epoch == 2
