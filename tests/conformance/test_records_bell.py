"""Doorbells pushed by the records' scripts, where broker and records are one server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pytest
import redis

from dispatcher.records.base import Records
from dispatcher.records.bell import Bell
from dispatcher.records.redis import open_redis
from dispatcher.runs import transitions
from dispatcher.runs.change import Ring
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause
from tests.conformance.specs import accept, make, start


class Pushing(Bell):
    """A bell whose messages the scripts push."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.published: list[Ring] = []

    def message(self, ring: Ring) -> tuple[str, bytes] | None:
        return f"{self.instance}:{ring.route.queue}", f'"{ring.task} {ring.run_id} ü"'.encode()

    def publish(self, rings: Sequence[Ring]) -> None:
        self.published += rings

    def depth(self, queue: str) -> int:
        return 0


@pytest.fixture
def bells() -> list[Pushing]:
    """The bells made so far."""
    return []


@pytest.fixture
def records(server_url: str, bells: list[Pushing]) -> Iterator[Records]:
    """Records whose scripts push doorbells."""

    def make_bell(instance: str) -> Bell:
        bells.append(Pushing(instance))
        return bells[-1]

    opened = open_redis(server_url, bell=make_bell)
    opened.runs.check = lambda record, now: None  # every signature holds
    yield opened
    opened.close()


def waiting(records: Records, server_url: str, queue: str = "local") -> list[str]:
    """Return the run ids of a queue's messages, in the order in which Celery takes them."""
    run_ids = []
    with redis.Redis.from_url(server_url, decode_responses=True) as client:
        while message := client.rpop(f"{records.instance}:{queue}"):
            assert isinstance(message, str)
            assert message.endswith('ü"')
            run_ids.append(message.split(" ")[1])
    return run_ids


def test_a_bell_is_made_for_the_installation(records: Records, bells: list[Pushing]) -> None:
    assert [bell.instance for bell in bells] == [records.instance]


def test_messages_are_pushed_with_the_record_and_nothing_is_published(
    records: Records, server_url: str, bells: list[Pushing]
) -> None:
    made = records.runs.create([make(), make(), make(labels=("a",))])
    records.runs.create(made)  # again, as after a lost reply
    assert waiting(records, server_url) == [record.id for record in made[:2]]
    assert waiting(records, server_url, "local:a") == [made[2].id]
    assert bells[0].published == []


def test_a_run_with_a_used_key_rings_no_doorbell(records: Records, server_url: str) -> None:
    first = accept(records, key="k")
    accept(records, key="k")
    assert waiting(records, server_url) == [first.id]


def test_a_doorbell_for_on_exit_goes_first(records: Records, server_url: str) -> None:
    dead = start(records, accept(records, on_exit=True))
    waiting(records, server_url)
    others = [accept(records), accept(records)]
    lost = Outcome(cause=Cause.WORKER_LOST)
    records.runs.update(dead.id, partial(transitions.abandon, epoch=dead.epoch, outcome=lost))
    assert waiting(records, server_url) == [dead.id, others[0].id, others[1].id]


def test_a_change_that_came_too_late_rings_no_doorbell(records: Records, server_url: str) -> None:
    record = accept(records)
    waiting(records, server_url)
    record.mark_verified()
    late = transitions.ring_again(record, record.created_at + 1)
    assert late is not None
    start(records, record)
    records.runs.commit(late)
    assert waiting(records, server_url) == []
