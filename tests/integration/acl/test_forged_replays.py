"""Row 34 of the fault matrix: records of ended runs, restored by an attacker to a state in which a run is held.

The attacker has the clients' Redis user and no signing key, as in ``test_forged_runs.py``. A run in such a state goes
on when its worker dies, or when its ``on_exit`` is due.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dispatcher import LocalEnvironment, flow
from dispatcher.broker.doorbell import envelope
from dispatcher.runs import indexes
from dispatcher.runs.change import CALL_ON_EXIT, EXECUTE, Ring
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from tests.integration.acl_server import INSTANCE
from tests.integration.attacker import Attacker
from tests.integration.workers import Bench, Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.row(34), pytest.mark.timeout(300)]

GONE = (b"outcome", b"ended_at", b"started_at", b"settled_at", b"owner", b"holder", b"change", b"exit_call")


@flow
def notes(path: str) -> int:
    note(path)
    return 1


def note(path: str, *_: object) -> None:
    with Path(path).open("a") as file:
        file.write("run\n")


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def put_back(attacker: Attacker, record: Record, **fields: str) -> None:
    """Restore the record of an ended run to a state that it never had."""
    stored = {name: value for name, value in attacker.stored(record.id).items() if name not in GONE}
    attacker.write(record.id, {**stored, "epoch": "1", "attempt": "1", **fields}, open=time.time())


def refused(bench: Bench, run_id: str) -> None:
    """Check that the run ended because its spec was used."""
    record = bench.ended(run_id, timeout=60)
    assert record.outcome is not None
    assert (record.state, record.outcome.reason) == (State.CRASHED, "SpecUsed"), record.outcome


@pytest.mark.parametrize("state", ["CLAIMED", "RUNNING"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_run_that_its_dead_worker_is_said_to_hold(
    bench: Bench, attacker: Attacker, start: Callable[..., Worker], tmp_path: Path, state: str, retries: int
) -> None:
    """A dead worker's claimed runs return to the queue, and its running ones may be repeated; ended runs don't."""
    path = tmp_path / "runs"
    doomed = start(concurrency=1)
    (owner,) = [worker.id for worker in bench.records.workers.live(within=60.0)]
    ended = bench.ended(bench.submit(notes, {"path": str(path)}, retries=retries))
    assert (ended.state, lines(path)) == (State.SUCCEEDED, 1)
    start(concurrency=1)
    put_back(attacker, ended, state=state, owner=owner, holder="" if state == "CLAIMED" else f"{owner}/1")
    attacker.server.zadd(attacker.keys.index(indexes.owned(owner)), {ended.id: time.time()})
    doomed.kill()
    bench.ended(ended.id, timeout=60)
    assert bench.ended(bench.submit(notes, {"path": str(tmp_path / "others")})).state is State.SUCCEEDED
    assert lines(path) == 1
    if (state, retries) != ("RUNNING", 0):  # that one is said to have been lost, and is repeated by no policy
        refused(bench, ended.id)


def test_a_run_that_was_too_late_is_said_to_wait(
    bench: Bench, attacker: Attacker, start: Callable[..., Worker], tmp_path: Path
) -> None:
    """It was never started, and isn't started after its end."""
    path = tmp_path / "runs"
    run_id = bench.submit(notes, {"path": str(path)}, start_within=0.1)
    bench.until(run_id, lambda record: bench.records.runs.now() > (record.start_by or 0), "its time to pass")
    start(concurrency=1)
    late = bench.ended(run_id)
    assert late.state is State.TIMED_OUT
    put_back(attacker, late, state="QUEUED", queued_at=repr(time.time() + 3600))
    attacker.wait(run_id)
    refused(bench, run_id)
    assert lines(path) == 0


def test_a_run_that_another_process_is_said_to_run(
    bench: Bench, attacker: Attacker, start: Callable[..., Worker], tmp_path: Path
) -> None:
    """A record names a process, which doesn't start an attempt again that it has started: each task has a new name."""
    path = tmp_path / "runs"
    first = start(concurrency=1)
    ended = bench.ended(bench.submit(notes, {"path": str(path)}))
    first.end()
    start(concurrency=1)
    other = bench.ended(bench.submit(notes, {"path": str(tmp_path / "others")}))
    (owner,) = [worker.id for worker in bench.records.workers.live(within=60.0) if worker.id != ended.owner][-1:]
    put_back(attacker, ended, state="RUNNING", holder=other.holder, owner=owner)
    for task in (EXECUTE, CALL_ON_EXIT):
        ring = Ring(run_id=ended.id, task=task, flow="notes", route=Route("local"))
        attacker.server.lpush(f"{INSTANCE}:local", envelope(ring))
    for _ in range(2):
        bench.ended(bench.submit(notes, {"path": str(tmp_path / "others")}))
    assert lines(path) == 1


@pytest.mark.parametrize("rung", [True, False], ids=["by a doorbell", "by the clock"])
def test_an_on_exit_that_is_said_to_be_due(
    bench: Bench, attacker: Attacker, start: Callable[..., Worker], tmp_path: Path, rung: bool
) -> None:
    """It was called when its run ended, and isn't called again."""
    path, called = tmp_path / "runs", tmp_path / "called"
    start(concurrency=1)
    environment = LocalEnvironment(on_exit=partial(note, str(called)))
    ended = bench.ended(bench.submit(notes, {"path": str(path)}, environment=environment))
    wait_until(lambda: lines(called), "the call")
    now = bench.records.runs.now()
    for _ in range(3):
        put_back(attacker, ended, state="RUNNING", exit_call="due", settled_at=repr(now), due_at=repr(now - 1))
        if rung:
            ring = Ring(run_id=ended.id, task=CALL_ON_EXIT, flow="notes", route=Route("local"))
            attacker.server.lpush(f"{INSTANCE}:local", envelope(ring))
        else:
            attacker.server.zadd(attacker.keys.index(indexes.DUE), {ended.id: now - 1})
        refused(bench, ended.id)
    begun = {"state": "RUNNING", "exit_call": "begun", "settled_at": repr(now), "holder": ended.holder}
    put_back(attacker, ended, **begun)
    ring = Ring(run_id=ended.id, task=CALL_ON_EXIT, flow="notes", route=Route("local"))
    attacker.server.lpush(f"{INSTANCE}:local", envelope(ring))
    bench.ended(bench.submit(notes, {"path": str(tmp_path / "others")}))
    assert (lines(path), lines(called)) == (1, 1)
