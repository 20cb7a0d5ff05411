"""What a supervisor keeps of thousands of runs (issue 5, Speed: 5,000 live runs within 300 MB)."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.records.memory import open_memory
from dispatcher.runs.record import Record
from tests.unit.making import make_record, queued, trusting
from workers.supervisor.record_cache import PORTION, RecordCache, slim, slim_leftovers

REQUEST = {"shard": "kubernetes/1", "epoch": 1, "body": {"job": "large"}}
BODILESS = {"shard": "kubernetes/1", "epoch": 1}


def test_a_request_is_kept_as_long_as_it_may_be_sent_again() -> None:
    asked = queued().but(request=REQUEST)

    assert slim(asked) == asked
    assert slim(asked.but(handle={"uid": "a"})).request == BODILESS


def test_a_leftover_keeps_its_request_where_nothing_else_names_it() -> None:
    left = {"attempt": 1, "handle": None, "request": REQUEST}

    found = slim_leftovers(queued().but(leftovers=(left, {**left, "attempt": 2, "handle": {"uid": "a"}})))

    assert [one["request"] for one in found.leftovers] == [REQUEST, BODILESS]


def test_many_runs_are_read_in_portions() -> None:
    runs, asked = trusting(open_memory()).runs, []
    records = runs.create([make_record(f"run{number}") for number in range(PORTION + 1)])
    read = runs.get_many

    def get_many(run_ids: Sequence[str]) -> list[Record | None]:
        asked.append(len(run_ids))
        return read(run_ids)

    runs.get_many = get_many  # type: ignore[method-assign]
    known = RecordCache(runs, slim)

    assert len(known.refresh((record.id, record.version) for record in records)) == PORTION + 1
    assert asked == [PORTION, 1]
    assert len(known) == PORTION + 1
