"""Runs in states of another release, and runs with an unreadable spec, in every implementation of the records."""

from __future__ import annotations

import pytest

from dispatcher.errors import Refused
from dispatcher.records.base import Records
from dispatcher.records.query import Query
from dispatcher.runs import indexes, transitions
from dispatcher.runs.states import State
from tests.conformance.specs import accept, cancel, make


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
