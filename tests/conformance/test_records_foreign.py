"""Runs in states of another release, and runs with an unreadable spec, in every implementation of the records."""

from __future__ import annotations

import pytest

from dispatcher.errors import Refused
from dispatcher.records.base import Records
from dispatcher.records.query import Query
from dispatcher.records.rejections import Rejected
from dispatcher.runs import indexes, transitions
from dispatcher.runs.record import Record
from dispatcher.runs.states import State
from tests.conformance.specs import accept, cancel, make, start


def test_a_run_in_an_unknown_state_is_found_and_left_as_it_is(records: Records) -> None:
    [record] = records.runs.create([make(start_within=3.0).but(state=State.UNKNOWN)])
    for step in (transitions.request_cancel, transitions.tick, transitions.ring_again):
        with pytest.raises(Refused, match="another release"):
            records.runs.update(record.id, step)
    stored, _ = records.runs.get(record.id)
    assert (stored.state, stored.version) == (State.UNKNOWN, record.version)
    assert [stored.id for stored in records.runs.find(Query(state=State.UNKNOWN))] == [record.id]
    assert [stored.id for stored in records.runs.find(Query())] == [record.id]


def test_a_run_whose_spec_cannot_be_read_is_found_and_can_be_ended(records: Records) -> None:
    good = accept(records)
    [broken] = records.runs.create([make().but(spec_bytes=b"[")])
    assert broken.spec.flow == "?"
    assert {record.id for record in records.runs.find(Query())} == {good.id, broken.id}
    assert cancel(records, broken).state is State.CANCELLED
    assert [record.id for record in records.runs.find(Query(state=State.CANCELLED))] == [broken.id]


def test_runs_under_an_index(records: Records) -> None:
    first, second = accept(records), accept(records)
    assert [record.id for record in records.runs.under(indexes.ALL)] == [first.id, second.id]
    records.runs.leave(indexes.ALL, [first.id])
    records.runs.leave(indexes.ALL, [])
    assert [record.id for record in records.runs.under(indexes.ALL)] == [second.id]
    assert records.runs.get(first.id)[0] == first


def test_runs_leave_an_index_unless_their_record_has_changed(records: Records) -> None:
    first, second, third = (accept(records) for _ in range(3))
    changed = start(records, second)
    assert records.runs.leave(indexes.ALL, {}) == 0
    versions = {first.id: first.version, second.id: second.version, "missing": 1}
    assert records.runs.leave(indexes.ALL, versions) == 1
    assert {run_id for run_id, _ in records.runs.members(indexes.ALL)} == {second.id, third.id}
    assert records.runs.leave(indexes.ALL, {first.id: first.version, changed.id: changed.version}) == 1


def test_members_of_an_index_are_read_in_portions(records: Records) -> None:
    run_ids = [accept(records).id for _ in range(5)]
    portions = [records.runs.members(indexes.ALL, limit=2, skip=skip) for skip in (0, 2, 4, 6)]
    assert sorted(run_id for portion in portions for run_id, _ in portion) == sorted(run_ids)
    assert [len(portion) for portion in portions] == [2, 2, 1, 0]


def test_many_rejections_are_counted_at_once(records: Records) -> None:
    records.rejections.note(Rejected.ENTRY, 3)
    records.rejections.note(Rejected.ENTRY)
    assert records.rejections.tallies()[Rejected.ENTRY].count == 4


@pytest.mark.parametrize("state", ["SUCCEEDED", "PAUSED"])
def test_the_indexes_in_which_a_record_belongs(records: Records, state: str) -> None:
    record = start(records, accept(records))
    owned = indexes.owned(record.owner)
    assert indexes.belongs(record, owned)
    assert not indexes.belongs(record, indexes.owned("another"))
    changed = Record.from_fields({**encoded(record), "state": state.encode()})
    assert indexes.belongs(changed, owned) == (state == "PAUSED")
    unreadable = Record.from_fields({**encoded(record), "spec_bytes": b"[]"})
    assert indexes.belongs(unreadable, indexes.by_flow("any"))
    assert indexes.belongs(unreadable, owned)


def encoded(record: Record) -> dict[str, bytes]:
    """Return the fields of a record as a server returns them."""
    return {
        name: value if isinstance(value, bytes) else str(value).encode() for name, value in record.to_fields().items()
    }
