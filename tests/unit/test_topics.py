"""The topics of a client's listener: one for all runs of this process, one for each other run."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from dispatcher.client.early_ends import EarlyEnds
from dispatcher.client.hooks import Hook, Hooks
from dispatcher.client.pending import PendingRuns, Waiting
from dispatcher.client.topics import IDLE_POLLS, Topics
from dispatcher.records.events import Listener
from dispatcher.runs.events import Event, EventKind
from dispatcher.support.ids import new_id


class TopicSet(Listener):
    """A listener that only notes its topics."""

    def __init__(self) -> None:
        self.topics: set[str] = set()

    def watch(self, topics: Iterable[str], *, certain: bool = True) -> None:
        self.topics |= set(topics)

    def unwatch(self, topics: Iterable[str]) -> None:
        self.topics -= set(topics)

    def get(self, timeout: float) -> tuple[str, Event | None] | None:
        return None

    def close(self) -> None: ...


class Client:
    """The parts of a client that topics depend on."""

    def __init__(self) -> None:
        self.listener = TopicSet()
        self.ends, self.pending, self.hooks = EarlyEnds(), PendingRuns(), Hooks()
        self.topics = Topics(self.listener, self.ends, self.pending, self.hooks)

    def wait(self, *run_ids: str) -> Waiting:
        self.topics.watch_ends(run_ids)
        waiting = Waiting(run_ids, [], add=lambda waiting: None, remove=lambda waiting: None)
        self.pending.add(waiting, None)
        return waiting

    def leave(self, waiting: Waiting) -> None:
        self.pending.remove(waiting)
        self.topics.drop(waiting.run_ids)


@pytest.fixture
def client() -> Client:
    return Client()


def test_runs_of_this_process_share_a_topic(client: Client) -> None:
    client.wait(new_id(), new_id(), "r1")
    assert client.listener.topics == {client.ends.topic, "r1"}
    assert client.ends.subscribed


def test_a_topic_is_left_with_its_last_wait(client: Client) -> None:
    first, second = client.wait("r1"), client.wait("r1")
    client.leave(first)
    assert client.listener.topics == {"r1"}
    client.leave(second)
    assert client.listener.topics == set()


def test_a_topic_stays_for_a_hook(client: Client) -> None:
    client.hooks.add(Hook("r1", EventKind.EXITED, print))
    client.leave(client.wait("r1"))
    assert client.listener.topics == {"r1"}


def test_the_shared_topic_is_left_after_idle_polls(client: Client) -> None:
    waiting = client.wait(new_id())
    for _ in range(2 * IDLE_POLLS):
        client.topics.drop_idle()
    assert client.ends.subscribed, "a run of this process is waited for"
    client.leave(waiting)
    for _ in range(IDLE_POLLS):
        client.topics.drop_idle()
    assert client.listener.topics == set()
    assert not client.ends.subscribed
