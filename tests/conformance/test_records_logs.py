"""Log lines: one suite for every implementation of the records."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import redis

from dispatcher.records.base import Records
from dispatcher.records.logs import GAP, MOST_TAIL, Line
from dispatcher.records.redis.connection.streams import previous_position
from dispatcher.records.redis.keys import Keys
from tests.conformance.conftest import Store
from tests.conformance.specs import accept


def lines(attempt: int, first: int, last: int) -> list[Line]:
    return [
        Line(attempt=attempt, number=n, time=n + 0.25, stream="log", text=f"line {n} ü\x00", level="INFO")
        for n in range(first, last + 1)
    ]


def test_lines_are_read_in_order_behind_a_cursor(records: Records) -> None:
    record = accept(records)
    records.logs.append(record.id, lines(1, 1, 5))
    first, cursor = records.logs.read(record.id, limit=3)
    assert first == lines(1, 1, 3)
    rest, cursor = records.logs.read(record.id, after=cursor)
    assert rest == lines(1, 4, 5)
    assert records.logs.read(record.id, after=cursor) == ([], cursor)
    assert records.logs.read("nobody") == ([], "")


def test_a_line_is_stored_once(records: Records) -> None:
    record = accept(records)
    records.logs.append(record.id, lines(1, 1, 3))
    records.logs.append(record.id, lines(1, 2, 5))
    records.logs.append(record.id, [])
    records.logs.append(record.id, lines(2, 1, 2))
    records.logs.append(record.id, lines(1, 5, 6))  # the first attempt's last words
    stored, _ = records.logs.read(record.id)
    assert stored == [*lines(1, 1, 5), *lines(2, 1, 2), *lines(1, 6, 6)]


def test_very_many_lines_at_once(records: Records) -> None:
    record = accept(records)
    records.logs.append(record.id, [*lines(1, 1, 1200), *lines(2, 1, 3)])
    assert len(records.logs.read(record.id, limit=5000)[0]) == 1203


def test_lone_surrogates_are_stored_as_escapes(records: Records) -> None:
    record = accept(records)
    records.logs.append(record.id, [Line(attempt=1, number=1, time=0.0, stream="stdout", text="a\udc80b")])
    [line], _ = records.logs.read(record.id)
    assert line.text[0] + line.text[-1] == "ab"


def test_waiting_for_a_line(store: Store) -> None:
    record = accept(store.records)
    writer = store.another()
    timer = threading.Timer(0.2, lambda: writer.logs.append(record.id, lines(1, 1, 1)))
    begun = time.monotonic()
    timer.start()
    stored, _ = store.records.logs.read(record.id, block=8)
    assert stored == lines(1, 1, 1)
    assert time.monotonic() - begun < 5
    timer.join()


def test_a_wait_ends(records: Records) -> None:
    record = accept(records)
    begun = time.monotonic()
    assert records.logs.read(record.id, block=0.2) == ([], "")
    assert 0.15 < time.monotonic() - begun < 5


class TestTail:
    def test_the_last_lines_are_returned_in_order(self, records: Records) -> None:
        record = accept(records)
        records.logs.append(record.id, lines(1, 1, 250))
        assert records.logs.tail(record.id, 20) == lines(1, 231, 250)
        assert records.logs.tail(record.id, 150) == lines(1, 101, 250)
        assert records.logs.tail(record.id, 1000) == lines(1, 1, 250)
        assert records.logs.tail("nobody", 20) == []

    def test_lines_of_one_attempt(self, records: Records) -> None:
        record = accept(records)
        records.logs.append(record.id, [*lines(1, 1, 5), *lines(2, 1, 400), *lines(1, 6, 6)])
        assert records.logs.tail(record.id, 3, attempt=1) == lines(1, 4, 6)
        assert records.logs.tail(record.id, 3, attempt=2) == lines(2, 398, 400)
        assert records.logs.tail(record.id, 3, attempt=3) == []

    def test_gaps_are_left_out_on_request(self, records: Records) -> None:
        record = accept(records)
        gap = replace(lines(1, 9, 9)[0], stream=GAP)
        records.logs.append(record.id, [*lines(1, 1, 3), gap])
        assert records.logs.tail(record.id, 2) == [*lines(1, 3, 3), gap]
        assert records.logs.tail(record.id, 2, gaps=False) == lines(1, 2, 3)

    def test_long_lines_are_bounded_together(self, records: Records) -> None:
        record = accept(records)
        long = [replace(line, text="x" * (MOST_TAIL // 4)) for line in lines(1, 1, 6)]
        records.logs.append(record.id, long)
        assert records.logs.tail(record.id, 6) == long[2:]
        records.logs.append(record.id, [longer := replace(lines(1, 7, 7)[0], text="x" * (MOST_TAIL + 1))])
        assert records.logs.tail(record.id, 6) == [longer], "one line at least"

    def test_on_a_server_only_the_end_is_read(self, server_url: str, redis_records: Records, raw: Any) -> None:
        record = accept(redis_records)
        redis_records.logs.append(record.id, lines(1, 1, 3000))
        raw.config_resetstat()
        assert redis_records.logs.tail(record.id, 20) == lines(1, 2981, 3000)
        calls = {name: stat["calls"] for name, stat in raw.info("commandstats").items()}
        assert (calls["cmdstat_xrevrange"], calls.get("cmdstat_xread")) == (1, None)

    def test_malformed_entries_are_left_out(self, redis_records: Records, raw: Any) -> None:
        record = accept(redis_records)
        redis_records.logs.append(record.id, lines(1, 1, 2))
        raw.xadd(Keys(redis_records.instance).logs(record.id), {"x": "y"})
        redis_records.logs.append(record.id, lines(1, 3, 3))
        assert redis_records.logs.tail(record.id, 2) == lines(1, 2, 3)

    def test_entries_ahead_of_the_clock_are_left_out(self, redis_records: Records, raw: Any) -> None:
        record = accept(redis_records)
        redis_records.logs.append(record.id, lines(1, 1, 3))
        for n in range(300):
            raw.xadd(Keys(redis_records.instance).logs(record.id), {"x": "y"}, id=f"99999999999{n:03d}-0")
        assert redis_records.logs.tail(record.id, 2) == lines(1, 2, 3)
        assert redis_records.logs.read(record.id, limit=3)[0] == lines(1, 1, 3)

    def test_a_key_of_another_type_has_no_lines(
        self, redis_records: Records, raw: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        record = accept(redis_records)
        raw.set(Keys(redis_records.instance).logs(record.id), "x")
        assert redis_records.logs.tail(record.id, 2) == []
        assert f"run {record.id}" in caplog.text


@pytest.fixture
def redis_records(server_url: str) -> Any:
    """Records on a server."""
    store = Store("redis", server_url)
    yield store.records
    store.close()


@pytest.fixture
def raw(server_url: str) -> Any:
    """A plain connection to the server."""
    with redis.Redis.from_url(server_url) as connection:
        yield connection


def test_previous_positions() -> None:
    assert previous_position("5-7") == "5-6"
    assert previous_position("5-0") == f"4-{2**64 - 1}"
    assert previous_position("0-0") == ""
