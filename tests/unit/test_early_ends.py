"""Ends of a process's own runs that come before a wait: remembered, bounded, and never relied upon too early."""

from __future__ import annotations

import os

import pytest

from dispatcher.client.early_ends import MOST, MOST_BYTES, MOST_FIELDS, EarlyEnds
from dispatcher.support import ids


def subscribed_ends() -> EarlyEnds:
    ends = EarlyEnds()
    ends.joined_topic()
    return ends


def test_ids_of_one_process_ascend_and_end_alike() -> None:
    made = [ids.new_id() for _ in range(2000)]
    assert made == sorted(set(made))
    assert {ids.ending(run_id) for run_id in made} == {ids.own_ending()}
    assert EarlyEnds().is_ours(made[0])


def test_a_forks_child_has_an_ending_of_its_own() -> None:
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, f"{ids.own_ending()} {ids.ending(ids.new_id())}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    own, ending = os.read(reader, 100).decode().split()
    assert own == ending != ids.own_ending()


def test_only_ends_of_runs_submitted_since_are_sure_to_be_heard() -> None:
    before = ids.new_id()
    ends = EarlyEnds()
    assert not ends.will_be_announced(before)
    ends.joined_topic()
    after = ids.new_id()
    assert not ends.will_be_announced(before)
    assert ends.will_be_announced(after)
    assert not ends.will_be_announced("r1"), "another process's"
    ends.joined_topic()  # the connection was lost meanwhile
    assert not ends.will_be_announced(after)
    ends.left_topic()
    assert not ends.will_be_announced(ids.new_id())


def test_announced_fields_are_taken_once() -> None:
    ends, run_id = subscribed_ends(), ids.new_id()
    ends.keep(run_id, {"state": b"SUCCEEDED"})
    assert not ends.will_be_announced(run_id)
    assert ends.take(run_id) == {"state": b"SUCCEEDED"}
    assert not ends.take(run_id), "a later wait reads it"
    assert not ends.will_be_announced(run_id), "its end isn't told again"
    ends.keep(run_id, {})
    ends.keep(other := ids.new_id(), {"state": b"FAILED"})
    ends.keep(other, {})
    assert ends.take(other) == {"state": b"FAILED"}, "a notice that says less takes nothing away"


def test_if_two_notices_differ_the_run_is_read() -> None:
    ends, run_id = subscribed_ends(), ids.new_id()
    ends.keep(run_id, {"state": b"SUCCEEDED"})
    ends.keep(run_id, {"state": b"FAILED"})
    assert not ends.take(run_id)
    ends.keep(run_id, {"state": b"SUCCEEDED"})
    assert not ends.take(run_id), "and after that, too"
    assert not ends.will_be_announced(run_id)


@pytest.mark.parametrize(
    "fields", [{f"f{number}": b"" for number in range(MOST_FIELDS + 1)}, {"result": bytes(MOST_BYTES)}]
)
def test_large_fields_are_not_kept(fields: dict[str, bytes]) -> None:
    ends, run_id = subscribed_ends(), ids.new_id()
    ends.keep(run_id, fields)
    assert ends._fields == {run_id: {}}


def test_an_id_of_the_wrong_form_is_not_kept() -> None:
    ends = subscribed_ends()
    ends.keep("x" * 1000 + ids.own_ending(), {"state": b"FAILED"})
    assert not ends._fields


def test_runs_of_others_or_after_leaving_the_topic_are_not_kept() -> None:
    ends, run_id = subscribed_ends(), ids.new_id()
    ends.keep("r1", {"state": b"SUCCEEDED"})
    assert ends.take("r1") is None
    ends.left_topic()
    ends.keep(run_id, {"state": b"SUCCEEDED"})
    assert ends.take(run_id) is None


def test_a_run_dropped_for_lack_of_room_is_read() -> None:
    ends = subscribed_ends()
    made = [ids.new_id() for _ in range(MOST + 1)]
    for run_id in made:
        ends.keep(run_id, {"state": b"SUCCEEDED"})
    assert ends.take(made[0]) is None
    assert not ends.will_be_announced(made[0])
    assert ends.take(made[1]) is not None
