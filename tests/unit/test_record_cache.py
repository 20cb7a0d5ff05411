"""A supervisor's copies of thousands of records (5,000 live runs within 300 MB)."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.records.memory import open_memory
from dispatcher.runs import indexes
from dispatcher.runs.record import Record
from tests.unit.making import make_record, queued, trusting
from workers.supervisor.record_cache import PORTION, RecordCache, slim, slim_leftovers

REQUEST = {"shard": "kubernetes/1", "epoch": 1, "body": {"job": "large"}}
BODILESS = {"shard": "kubernetes/1", "epoch": 1}


def test_a_request_is_cached_as_long_as_it_may_be_sent_again() -> None:
    requested = queued().but(request=REQUEST)

    assert slim(requested) == requested
    assert slim(requested.but(handle={"uid": "a"})).request == BODILESS


def test_a_leftover_keeps_its_request_if_it_has_no_handle() -> None:
    left = {"attempt": 1, "handle": None, "request": REQUEST}

    record = slim_leftovers(queued().but(leftovers=(left, {**left, "attempt": 2, "handle": {"uid": "a"}})))

    assert [leftover["request"] for leftover in record.leftovers] == [REQUEST, BODILESS]


def test_many_runs_are_read_in_portions() -> None:
    opened, portions = trusting(open_memory()), []
    runs = opened.runs
    records = runs.create([make_record(f"run{number}") for number in range(PORTION + 1)])
    read = runs.get_many

    def get_many(run_ids: Sequence[str]) -> list[Record | None]:
        portions.append(len(run_ids))
        return read(run_ids)

    runs.get_many = get_many  # type: ignore[method-assign]
    cache = RecordCache(opened, slim)

    assert len(cache.refresh({indexes.OPEN: [(record.id, record.version) for record in records]})) == PORTION + 1
    assert portions == [PORTION, 1]
    assert len(cache) == PORTION + 1
