"""Idle connections are reused, checked, and never shared with a forked child."""

from __future__ import annotations

import multiprocessing
import select
from collections.abc import Iterator

import pytest
import redis

from dispatcher.errors import ServerUnavailable
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.connection.client import Client
from dispatcher.runs.indexes import ALL
from tests.conformance.proxy import Proxy
from tests.conformance.specs import accept, make
from tests.waiting import wait_until


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    client = Client(server_url, timeout=5.0)
    yield client
    client.close()


def _id(client: Client) -> int:
    return int(client.one("CLIENT", "ID", once=True))


def test_a_connection_is_reused(client: Client) -> None:
    assert _id(client) == _id(client)


def test_a_closed_connection_is_replaced_before_a_command_is_sent(client: Client, server_url: str) -> None:
    first = _id(client)
    with redis.Redis.from_url(server_url) as raw:
        raw.client_kill_filter(_id=str(first))
        wait_until(lambda: str(first) not in {entry["id"] for entry in raw.client_list()}, "the connection's end")

    assert _id(client) != first  # sent once: a command that was lost would be an error


def test_any_number_of_threads_may_send_commands_at_once(client: Client) -> None:
    taken = [client._idle.take() for _ in range(120)]
    assert len({id(connection) for connection in taken}) == 120
    assert client.one("PING") == b"PONG"
    for connection in taken:
        client._idle.give_back(connection)


def test_a_late_reply_is_never_taken_for_that_of_another_command(client: Client) -> None:
    connection = client._idle.take()
    connection.send_command("ECHO", "left over")
    wait_until(lambda: select.select([connection._sock], [], [], 0)[0], "the reply")
    client._idle.give_back(connection)

    assert client.one("ECHO", "mine", once=True) == b"mine"


def test_a_forks_child_has_connections_of_its_own(client: Client) -> None:
    mine = _id(client)
    context = multiprocessing.get_context("fork")
    theirs = context.Queue()
    child = context.Process(target=lambda: theirs.put(_id(client)))
    child.start()

    assert theirs.get(timeout=30) != mine
    child.join(30)
    assert _id(client) == mine


def test_a_listener_to_many_topics_receives_each_notice(server_url: str) -> None:
    records = open_redis(server_url)
    topics = [f"many-{number}" for number in range(300)]
    listener = records.events.listen()
    try:
        listener.watch(topics)
        with redis.Redis.from_url(server_url) as raw:
            for topic in topics:
                raw.publish(f"{records.instance}::topic:{topic}", "1.0")
        heard = [listener.get(timeout=10) for _ in topics]
    finally:
        listener.close()
        records.close()

    assert [notice and notice[0] for notice in heard] == topics


def test_a_listener_survives_any_number_of_lost_connections(server_url: str) -> None:
    """By default, redis-py makes at most a hundred connections in the life of a pool."""
    records = open_redis(server_url)
    listener = records.events.listen()
    listener.watch(["queues"])
    with redis.Redis.from_url(server_url) as raw:
        for _ in range(110):
            raw.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert listener.get(10) == ("", None)
    accept(records)
    assert listener.get(10) == ("queues", None)
    records.close()


def test_a_submit_that_is_refused_after_a_lost_reply_may_exist(server_url: str, proxy: Proxy) -> None:
    """The refusal of the second try says nothing about the first."""
    records = open_redis(proxy.url)
    accept(records)
    with redis.Redis.from_url(server_url) as raw:
        before = records.runs.count(ALL)
        proxy.requests, proxy.lose = 0, 1
        proxy.when_lost = lambda: raw.execute_command("ACL", "SETUSER", "default", "-fcall")
        try:
            with pytest.raises(ServerUnavailable) as caught:
                records.runs.create([make()])
        finally:
            raw.execute_command("ACL", "SETUSER", "default", "+@all")
    assert caught.value.may_exist
    assert records.runs.count(ALL) == before + 1
    records.close()
