"""The checks over the service, over secrets and over what is left can fail: each is shown something that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.records.redis import open_redis
from dispatcher.runs.attempt import object_name
from dispatcher.runs.record import Record
from tests.chaos.checker import leaks, left_after_retention, violations_of, wrong_in_service, wrong_lines
from tests.chaos.flows import Mark
from tests.conformance.specs import accept, ended
from tests.unit.making import trusting


@pytest.fixture
def records(server_url: str) -> Iterator[Records]:
    records = trusting(open_redis(server_url))
    try:
        yield records
    finally:
        records.close()


@pytest.fixture
def run(records: Records) -> Record:
    return ended(records, key="k1")


def _ledger(folder: Path, *lines: tuple[str, str]) -> Path:
    text = "".join(json.dumps({"what": action, "name": name, "time": 0.0, "uid": "u"}) + "\n" for action, name in lines)
    (folder / "ledger.jsonl").write_text(text)
    return folder


class TestLines:
    """I7."""

    def line(self, number: int, *, attempt: int = 1, stream: str = "stdout") -> Line:
        return Line(attempt=attempt, number=number, time=0.0, stream=stream, text="x")

    def test_in_order(self) -> None:
        gap = self.line(5, stream="gap")
        assert wrong_lines([self.line(1), self.line(2), gap, self.line(6), self.line(1, attempt=2)]) == []

    def test_twice(self) -> None:
        assert wrong_lines([self.line(1), self.line(1)]) == ["line 1 of attempt 1 comes after 1: x"]

    def test_a_hole_without_a_gap(self) -> None:
        assert wrong_lines([self.line(1), self.line(3)]) == ["line 3 of attempt 1 comes after 1: x"]


def test_on_exit_before_the_outcome_was_stored(records: Records, run: Record) -> None:
    """I4."""
    settled = replace(run, settled_at=10.0)
    mark = Mark("on_exit", run.id, 1, 1, at=9.0, real=9.0)
    assert "on_exit began 1.0 s too early" in violations_of(settled, records.events.of(run.id)[0], [mark], 1)


class TestService:
    def test_in_order(self, tmp_path: Path, records: Records, run: Record) -> None:
        name = object_name(run.id, 1)
        assert wrong_in_service(_ledger(tmp_path, ("created", name), ("deleted", name)), records, [run.id]) == []

    def test_created_twice(self, tmp_path: Path, records: Records, run: Record) -> None:
        name = object_name(run.id, 1)
        folder = _ledger(tmp_path, ("created", name), ("created", name), ("deleted", name))
        assert wrong_in_service(folder, records, [run.id]) == [f"{name} was created 2 times"]

    def test_not_deleted(self, tmp_path: Path, records: Records, run: Record) -> None:
        name = object_name(run.id, 1)
        folder = _ledger(tmp_path, ("created", name))
        assert wrong_in_service(folder, records, [run.id]) == [f"{name} was created and not deleted"]

    def test_of_an_attempt_that_was_never_made(self, tmp_path: Path, records: Records, run: Record) -> None:
        name = object_name(run.id, 2)
        folder = _ledger(tmp_path, ("created", name), ("deleted", name))
        assert wrong_in_service(folder, records, [run.id]) == [f"{name} belongs to no attempt"]

    def test_workers(self, tmp_path: Path, records: Records, run: Record) -> None:
        made, gone = ("worker created", "c.w1"), ("worker deleted", "c.w1")
        assert wrong_in_service(_ledger(tmp_path, made, gone, made, gone), records, [run.id]) == []
        assert wrong_in_service(_ledger(tmp_path, made, made, gone), records, [run.id]) == [
            "worker c.w1 was created while it lived"
        ]
        assert wrong_in_service(_ledger(tmp_path, made), records, [run.id]) == [
            "worker c.w1 was created and not deleted"
        ]


class TestSecrets:
    def test_nowhere(self, tmp_path: Path, server_url: str, run: Record) -> None:
        (tmp_path / "log").write_text("nothing to see")
        assert leaks(server_url, ["canary"], [tmp_path / "log"]) == []

    def test_in_a_file(self, tmp_path: Path, server_url: str) -> None:
        (tmp_path / "log").write_text("redis://:canary@host")
        assert leaks(server_url, ["canary"], [tmp_path / "log"]) == ["file log"]

    def test_in_every_kind_of_key(self, server_url: str) -> None:
        with redis.Redis.from_url(server_url) as client:
            client.set("text", "a canary here")
            client.hset("hash", "field", "canary")
            client.rpush("list", "canary")
            client.sadd("set", "canary")
            client.zadd("sorted", {"canary": 1})
            client.xadd("stream", {"field": "canary"})
        names = {f"key b'{name}'" for name in ("text", "hash", "list", "set", "sorted", "stream")}
        assert set(leaks(server_url, ["canary"], [])) == names


class TestRetention:
    def test_nothing_is_left_of_ended_runs(self, server_url: str, run: Record) -> None:
        assert left_after_retention(server_url) == []

    def test_an_open_run_is_left(self, server_url: str, records: Records) -> None:
        run = accept(records, key="k1")
        left = left_after_retention(server_url)
        assert {f"run:{run.id}", f"run:{run.id}:events", "key:k1"} <= set(left)

    def test_a_key_that_nobody_removes_is_left(self, server_url: str, records: Records, run: Record) -> None:
        with redis.Redis.from_url(server_url) as client:
            client.set(f"{records.instance}::run:{run.id}:blobs:more", "forgotten")
            client.xadd(f"{records.instance}::inbox:s1", {"run": run.id})
        assert set(left_after_retention(server_url)) == {f"run:{run.id}:blobs:more", "inbox:s1"}
