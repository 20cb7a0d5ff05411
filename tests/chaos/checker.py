"""Check the invariants that hold after any fault, over the records, the service's own ledger and user code's marks.

I1 one terminal state, which never changes; I3 at most one creation and one start of user code per attempt; I4
``on_exit`` started at most once and after the outcome was stored, ``exited`` once per attempt; I5 nothing left in the
service; I6 no stale write accepted; I7 no line twice, none missing without a word; I8 no secret anywhere; I9 no key
left after retention.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.records.redis import open_redis
from dispatcher.runs.attempt import object_name
from dispatcher.runs.events import Event
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from dispatcher.serialization import KeyRing, from_value
from tests.chaos.flows import Mark


def violations_of(record: Record, events: Sequence[Event], marks: Iterable[Mark], result: Any) -> list[str]:
    """Return the violations of one run."""
    violations = [] if record.terminal else [f"it has not ended: {record.state}, attempt {record.attempt}"]
    violations += _wrong_events(record, events)
    marks = [mark for mark in marks if mark.run == record.id]
    mine = Counter((mark.step, mark.attempt) for mark in marks)
    violations += [f"{step} of attempt {attempt} started {n} times" for (step, attempt), n in mine.items() if n > 1]
    violations += [f"attempt {attempt} was never made" for _, attempt in mine if attempt > record.attempt]
    if record.request is None and record.settled_at is not None:  # a container's was stored in its shard's inbox
        begun = [mark.real for mark in marks if (mark.step, mark.attempt) == ("on_exit", record.attempt)]
        violations += [f"on_exit began {record.settled_at - at} s too early" for at in begun if at < record.settled_at]
    if record.state is State.SUCCEEDED and int(result or 0) != record.attempt:
        violations.append(f"a stale result was accepted: {result!r} of attempt {record.attempt}")
    if record.terminal and (record.owner or record.due_at is not None):
        violations.append(f"it has ended, and still has owner {record.owner!r}, due {record.due_at}")
    return violations


def _wrong_events(record: Record, events: Sequence[Event]) -> list[str]:
    violations = []
    counts = Counter((str(event.kind), event.attempt) for event in events)
    for kind in ("exited", "started"):
        violations += [f"{n} {kind} events of attempt {a}" for (k, a), n in counts.items() if k == kind and n > 1]
    ended = {attempt for kind, attempt in counts if kind == "exited"}
    last = record.attempt if record.terminal else record.attempt - 1
    if ended != set(range(1, last + 1)):
        violations.append(f"exited events of attempts {sorted(ended)}, ended are 1 to {last}")
    final = [event for event in events if event.kind == "exited" and event.final]
    if record.terminal and (len(final) != 1 or events[-1] != final[0] or final[0].state != record.state):
        violations.append(f"final events {[str(event.state) for event in final]}, state {record.state}")
    closed: set[int] = set()
    for event in events:
        if event.attempt in closed:
            violations.append(f"{event.kind} of attempt {event.attempt} after its end")
        if event.kind == "exited":
            closed.add(event.attempt)
    return violations


def wrong_lines(lines: Iterable[Line]) -> list[str]:
    """I7: each attempt's lines are numbered from 1 without a hole, but for those that a gap stands for."""
    violations = []
    last: Counter[int] = Counter()
    for line in lines:
        due = last[line.attempt] + 1
        if line.number < due or (line.number > due and line.stream != "gap"):
            violations.append(f"line {line.number} of attempt {line.attempt} comes after {due - 1}: {line.text}")
        last[line.attempt] = max(line.number, due - 1)
    return violations


def lines_of(records: Records, run_id: str) -> list[Line]:
    """All lines of a run."""
    lines, after = records.logs.read(run_id)
    while True:
        more, after = records.logs.read(run_id, after=after)
        if not more:
            return lines
        lines += more


def result_of(records: Records, keys: KeyRing, record: Record) -> Any:
    """Return a run's result; None if it has none."""
    value = record.outcome.result if record.outcome else None
    return None if value is None else from_value(value, get=records.blobs.get, seal=keys.seal(record))


def check(records: Records, keys: KeyRing, runs: Sequence[str], marks: Sequence[Mark]) -> dict[str, list[str]]:
    """Violations by run; nothing for runs that are in order."""
    violations: dict[str, list[str]] = {}
    by_run = defaultdict(list)
    for mark in marks:
        by_run[mark.run].append(mark)
    for run_id, record in zip(runs, records.runs.get_many(runs), strict=True):
        if record is None:
            violations[run_id] = ["an accepted run is gone"]
            continue
        events, _ = records.events.of(run_id)
        wrong = violations_of(record, events, by_run[run_id], result_of(records, keys, record))
        wrong += wrong_lines(lines_of(records, run_id))
        if wrong:
            kinds = [f"{event.attempt}:{event.kind}" for event in events]
            violations[run_id] = [*wrong, f"events {kinds}", f"outcome {record.outcome}"]
    return violations


def wrong_in_service(folder: Path, records: Records, runs: Sequence[str], *, ignored: Iterable[str] = ()) -> list[str]:
    """Return the violations of the fake backend's service: its own ledger against the records."""
    file = folder / "ledger.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    made = Counter(line["name"] for line in lines if line["what"] == "created")
    left = {line["uid"]: line["name"] for line in lines if line["what"] == "created"}
    for line in lines:
        if line["what"] == "deleted":
            left.pop(line["uid"], None)
    violations = [f"{name} was created {n} times" for name, n in made.items() if n > 1]
    violations += [f"{name} was created and not deleted" for name in left.values()]
    violations += _wrong_workers(lines)
    ours = {
        object_name(record.id, attempt)
        for record in records.runs.get_many(runs)
        if record is not None
        for attempt in range(1, record.attempt + 1)
    }
    gone_runs = {object_name(run_id, attempt) for run_id in ignored for attempt in range(1, 10)}
    return violations + [f"{name} belongs to no attempt" for name in made.keys() - ours - gone_runs]


def _wrong_workers(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the violations of workers of containers: no two of one name live at a time, and all are deleted."""
    violations, alive = [], set()
    for line in lines:
        if line["what"] == "worker created":
            violations += [f"worker {line['name']} was created while it lived"] if line["name"] in alive else []
            alive.add(line["name"])
        elif line["what"] == "worker deleted":
            alive.discard(line["name"])
    return violations + [f"worker {name} was created and not deleted" for name in sorted(alive)]


def leaks(server: str, secrets: Iterable[str], files: Iterable[Path]) -> list[str]:
    """Return the places in which a secret can be read: values in Redis, and files."""
    sought = [secret.encode() for secret in secrets]
    places = [f"file {path.name}" for path in files if any(secret in path.read_bytes() for secret in sought)]
    with redis.Redis.from_url(server) as client:
        for key in client.scan_iter(count=1000):
            if any(secret in value for value in _values(client, key) for secret in sought):
                places.append(f"key {key!r}")
    return places


def _values(client: Any, key: bytes) -> list[bytes]:
    match client.type(key):
        case b"string":
            return [client.get(key)]
        case b"hash":
            return [part for pair in client.hgetall(key).items() for part in pair]
        case b"list":
            return list(client.lrange(key, 0, -1))
        case b"set":
            return list(client.smembers(key))
        case b"zset":
            return list(client.zrange(key, 0, -1))
        case b"stream":
            return [part for _, fields in client.xrange(key) for pair in fields.items() for part in pair]
    return []


def left_after_retention(server: str, *, later: float = 30 * 86400.0) -> list[str]:
    """Keys of runs that are still there once retention is over by the injected clock."""
    records = open_redis(server, clock_offset=later)
    try:
        while records.runs.purge():
            pass
        prefix = f"{records.instance}::"
    finally:
        records.close()
    leftovers = []
    with redis.Redis.from_url(server) as client:
        for key in client.scan_iter(match=f"{prefix}*", count=1000):
            name = key.decode().removeprefix(prefix)
            without_expiry = name.startswith(("run:", "key:", "ix:", "blob:")) and client.ttl(key) < 0
            if without_expiry or (name.startswith("inbox:") and client.xlen(key)):
                leftovers.append(name)
    return leftovers
