"""Who answers for which shards."""

from __future__ import annotations

from dispatcher.records.memory import open_memory
from dispatcher.runs.attempt import SHARDS
from workers.supervisor.shards import Shards


def test_workers_share_them_fairly() -> None:
    leases = open_memory().leases
    one, other = Shards(leases, "fake", "one"), Shards(leases, "fake", "other")
    for _ in range(4):
        one.share(["one", "other"], ())
        other.share(["one", "other"], ())
    assert len(one.held) == len(other.held) == SHARDS / 2
    assert not {*one.held} & {*other.held}


def test_those_of_a_dead_worker_are_taken_and_the_epoch_grows() -> None:
    leases = open_memory().leases
    one, other = Shards(leases, "fake", "one"), Shards(leases, "fake", "other")
    one.share(["one"], ())
    other.share(["one", "other"], ())
    assert not other.held
    other.share(["other"], {"one"})
    assert len(other.held) == SHARDS
    assert {lease.epoch for lease in leases.held("fake/").values()} == {2}


def test_workers_that_just_died_leave_none_without_a_holder() -> None:
    """They count until their lease has ended; where workers keep dying, some always do."""
    leases = open_memory().leases
    one = Shards(leases, "fake", "one")
    looked_at: set[str] = set()
    for ghost in range(6):
        one.share(["one", f"ghost {ghost}", f"ghost {ghost + 1}"], ())
        looked_at |= {*one.held}
    assert len(looked_at) == SHARDS


def test_leaving_gives_all_back() -> None:
    leases = open_memory().leases
    one = Shards(leases, "fake", "one")
    one.share(["one"], ())
    one.release_all()
    assert not one.held
    assert leases.held("fake/") == {}
