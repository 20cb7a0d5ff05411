"""Supervisors are notified of cancels at once, by every implementation of the records."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.records.base import Records
from tests.conformance.specs import accept, cancel, start
from tests.waiting import wait_until
from workers.notifications import NotificationListener


class Held:
    """A stand-in for a supervisor: the shards it holds, and the cancels it was notified of."""

    def __init__(self, *held: str) -> None:
        self.held = list(held)
        self.told: list[tuple[str, str]] = []

    def cancel_requested(self, shard: str, run_id: str) -> None:
        self.told.append((shard, run_id))


class NoQueues:
    def learn(self, routes: Any) -> None: ...


@pytest.fixture
def held() -> Held:
    return Held("fake/3")


def test_cancels_in_held_shards_are_reported(records: Records, held: Held) -> None:
    woken: list[None] = []
    listener = NotificationListener(
        lambda: records,
        owner="w1",
        queues=NoQueues(),  # type: ignore[arg-type]
        every=0.05,
        wake=lambda: woken.append(None),
        supervisors=held,  # type: ignore[arg-type]
    )

    def told(count: int) -> bool:
        listener.tick()
        return len(held.told) == count

    try:
        wait_until(lambda: listener.tick() == 0.0, "its first round")
        ours, others = (start(records, accept(records), owner=owner) for owner in ("fake/3", "fake/4"))
        assert woken == []
        cancel(records, others)
        cancel(records, ours)
        wait_until(lambda: told(1), "the cancel")
        assert held.told == [("fake/3", ours.id)]
        held.held = ["fake/4"]
        listener.tick()
        cancel(records, start(records, accept(records), owner="fake/3"))
        last = start(records, accept(records), owner="fake/4")
        cancel(records, last)
        wait_until(lambda: told(2), "a cancel in the shard that it got")
        assert held.told[1] == ("fake/4", last.id)
        assert woken == [], "none of them is the worker's own"
    finally:
        listener.close()
