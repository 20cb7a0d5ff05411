"""The Redis user of runners in containers claims, logs, reports and stores results, but writes no record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher import flow
from dispatcher.records.redis.scripts import library, script
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.states import State
from tests.integration.acl_server import INSTANCE, AclServer
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.workers import QUICK, Bench

pytestmark = [pytest.mark.integration, pytest.mark.row(34)]

Begin = Callable[[AssignedRun], RunnerProcess]


@flow
def large(size: int) -> bytes:
    print("printed")  # noqa: T201
    return b"x" * size


@pytest.fixture
def bench(acl_server: AclServer) -> Iterator[Bench]:
    """The records with a worker's rights."""
    bench = Bench(acl_server.url("worker"), timing=QUICK)
    yield bench
    bench.close()


@pytest.fixture
def begin(acl_server: AclServer) -> Iterator[Begin]:
    """Starts runners as the Redis user ``runner``."""
    started: list[RunnerProcess] = []

    def launch(assigned: AssignedRun) -> RunnerProcess:
        started.append(RunnerProcess(assigned, variables={"DISPATCHER__URL": acl_server.url("runner")}))
        return started[-1]

    yield launch
    for runner in started:
        print(runner.output)  # noqa: T201 - pytest shows it where a test failed
        runner.end()


def test_a_runner_can_do_its_work_and_writes_no_record(
    acl_server: AclServer, bench: Bench, begin: Begin, tmp_path: Path
) -> None:
    assigned = AssignedRun(bench, tmp_path, large, parameters={"size": 10_000_000})
    before = bench.record(assigned.run_id)

    assert begin(assigned).wait() == 0

    assert bench.record(assigned.run_id) == before
    assert bench.lines(assigned.run_id) == ["printed"]
    outcome = assigned.report_of(ReportKind.EXITED).outcome
    assert outcome.cause is None
    assert outcome.result is not None
    assert outcome.result.blob
    assert len(bench.records.blobs.get(outcome.result.blob)) > 10_000_000
    assert assigned.record.state is State.RUNNING
    assert acl_server.refusals() == []


def test_a_second_runner_is_refused(acl_server: AclServer, bench: Bench, begin: Begin, tmp_path: Path) -> None:
    assigned = AssignedRun(bench, tmp_path, large, parameters={"size": 1})
    assert begin(assigned).wait() == 0
    late = begin(assigned)
    outcome = assigned.report_of(ReportKind.EXITED).outcome
    assert assigned.record.state is State.RUNNING
    bench.records.runs.update(
        assigned.run_id, lambda record, now: transitions.finish(record, now, epoch=record.epoch, outcome=outcome)
    )
    assert late.wait() == 0
    assert "stands by" in late.output
    assert assigned.report_kinds() == [ReportKind.EXITED]
    assert acl_server.refusals() == []


@pytest.mark.parametrize(
    "forged", ["", "x", "1.0\npod\n{}", '1.0\npod\n{"run": "r", "body": "{}", "mac": "00"}', "\n\n["]
)
def test_a_claim_of_another_container_stops_nobody(
    acl_server: AclServer, bench: Bench, begin: Begin, tmp_path: Path, forged: str
) -> None:
    """All runners share the user, but only the holder of the attempt's token can overwrite a claim."""
    assigned = AssignedRun(bench, tmp_path, large, parameters={"size": 1})
    with acl_server.as_user("runner") as attacker:
        attacker.set(f"{INSTANCE}::claim:{assigned.run_id}:1", forged)
    assert begin(assigned).wait() == 0
    assert assigned.report_of(ReportKind.EXITED).outcome.cause is None


def test_a_report_of_another_container_ends_no_run(acl_server: AclServer, bench: Bench, tmp_path: Path) -> None:
    assigned = AssignedRun(bench, tmp_path, large, parameters={"size": 1})
    with acl_server.as_user("runner") as attacker:
        body = json.dumps({"run": assigned.run_id, "attempt": 1, "about": "exited", "outcome": {}, "exit_call": None})
        attacker.xadd(f"{INSTANCE}::inbox:fake/0", {"run": assigned.run_id, "body": body, "mac": "00" * 32})
    with pytest.raises(Exception, match="was not made by the attempt"):
        assigned.reports()


def _commit(steps: list[Any]) -> tuple[str, ...]:
    record = f"{INSTANCE}::run:1"
    return ("FCALL", script("commit").name, "1", record, "0", "1", json.dumps(steps))


FORBIDDEN: list[tuple[str, ...]] = [
    ("HSET", f"{INSTANCE}::run:1", "state", "SUCCEEDED"),
    ("HDEL", f"{INSTANCE}::run:1", "state"),
    ("SET", f"{INSTANCE}::run:1", "x"),
    ("EXPIRE", f"{INSTANCE}::run:1", "0"),
    ("XADD", f"{INSTANCE}::run:1:events", "*", "fact", "{}"),
    ("XADD", f"{INSTANCE}::events", "*", "fact", "{}"),
    ("ZADD", f"{INSTANCE}::ix:all", "1", "1"),
    ("ZRANGE", f"{INSTANCE}::ix:all", "0", "-1"),
    ("HSET", f"{INSTANCE}::blob:x", "0", "x"),
    ("EXPIRE", f"{INSTANCE}::blob:x", "0"),
    ("HSET", f"{INSTANCE}::engine:used:1", "x", "1"),
    ("HGETALL", f"{INSTANCE}::engine:used:1"),
    ("HGETALL", f"{INSTANCE}::leases"),
    ("HGETALL", f"{INSTANCE}::workers"),
    ("XREAD", "STREAMS", f"{INSTANCE}::inbox:fake/0", "0"),
    ("XTRIM", f"{INSTANCE}::inbox:fake/0", "MAXLEN", "0"),
    ("SET", f"{INSTANCE}::inbox:fake/0", "x"),
    ("EXPIRE", f"{INSTANCE}::inbox:fake/0", "0"),
    ("DEL", f"{INSTANCE}::inbox:fake/0"),
    ("DEL", f"{INSTANCE}::claim:1:1"),
    ("LPUSH", f"{INSTANCE}:local", "x"),
    ("LLEN", f"{INSTANCE}:local"),
    ("GET", "staging::run:1"),
    ("SET", "dispatcher:instance", "mine"),
    ("PUBLISH", f"{INSTANCE}::topic:queues", ""),
    ("PUBLISH", f"{INSTANCE}:/0.celery.pidbox", "shutdown"),
    ("SUBSCRIBE", f"{INSTANCE}::topic:queues"),
    ("FCALL", script("share").name, "1", f"{INSTANCE}::blob:x", "60", "1", "x"),
    ("FCALL", script("acquire").name, "1", f"{INSTANCE}::leases", "fake/0", "me", "", ""),
    _commit([["HSET", f"{INSTANCE}::run:1", "state", "SUCCEEDED"]]),
    ("EVAL", "return 1", "0"),
    ("EVALSHA", "0" * 40, "0"),
    ("SCRIPT", "LOAD", "return 1"),
    ("FUNCTION", "LOAD", "REPLACE", "#!lua name=mine\nredis.register_function('mine', function() end)"),
    ("FUNCTION", "DELETE", library().name),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("FLUSHALL",),
]


@pytest.mark.parametrize("command", FORBIDDEN, ids=str)
def test_what_a_runner_may_not(shared_acl_server: AclServer, command: tuple[str, ...]) -> None:
    with shared_acl_server.as_user("runner") as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command)
