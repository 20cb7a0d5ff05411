"""Distribution of shards over workers."""

from __future__ import annotations

from dispatcher.records.memory import open_memory
from dispatcher.runs.attempt import SHARDS
from workers.supervisor.shards import Shards


def test_workers_share_them_fairly() -> None:
    leases = open_memory().leases
    first, second = Shards(leases, "fake", "first"), Shards(leases, "fake", "second")
    for _ in range(4):
        first.share(["first", "second"], ())
        second.share(["first", "second"], ())
    assert len(first.held) == len(second.held) == SHARDS / 2
    assert not {*first.held} & {*second.held}


def test_shards_of_a_dead_worker_are_taken_and_their_epoch_grows() -> None:
    leases = open_memory().leases
    first, second = Shards(leases, "fake", "first"), Shards(leases, "fake", "second")
    first.share(["first"], ())
    second.share(["first", "second"], ())
    assert not second.held
    second.share(["second"], {"first"})
    assert len(second.held) == SHARDS
    assert {lease.epoch for lease in leases.held("fake/").values()} == {2}


def test_workers_that_just_died_leave_no_shard_without_a_holder() -> None:
    """They count until their lease has ended. Where workers keep dying, some dead ones always count."""
    leases = open_memory().leases
    shards = Shards(leases, "fake", "first")
    held: set[str] = set()
    for ghost in range(6):
        shards.share(["first", f"ghost {ghost}", f"ghost {ghost + 1}"], ())
        held |= {*shards.held}
    assert len(held) == SHARDS


def test_all_shards_can_be_released() -> None:
    leases = open_memory().leases
    shards = Shards(leases, "fake", "first")
    shards.share(["first"], ())
    shards.release_all()
    assert not shards.held
    assert leases.held("fake/") == {}
