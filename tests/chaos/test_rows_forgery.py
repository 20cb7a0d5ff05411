"""Row 34 of the fault matrix: what was forged, replayed or mixed up is refused, counted, and never executed.

Changed records, foreign keys and users are in ``tests/integration/test_bad_input.py`` and ``test_acl.py``; here are
messages, and what was rightly signed but is used where it doesn't belong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher import Dispatcher, LocalEnvironment, flow
from dispatcher.broker.doorbell import envelope
from dispatcher.errors import SealBroken
from dispatcher.records.rejections import Rejected
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.attempt import shard_of
from dispatcher.runs.change import CALL_ON_EXIT, EXECUTE, ring_for
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization.signing_keys import AttemptCredentials
from tests.chaos.conftest import ChaosServer
from tests.chaos.deployment import Deployment
from tests.chaos.flows import callbacks, marked
from tests.integration.workers import Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.row(34)]


@pytest.fixture(scope="module")
def deployment(chaos_server: ChaosServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    timing = {"lease": 6.0}
    with Deployment(
        chaos_server.url, chaos_server.port, folder, workers=1, backends=["local", "fake"], drain=0.5, timing=timing
    ) as deployment:
        yield deployment
        deployment.settle()


@pytest.fixture
def worker(deployment: Deployment) -> Worker:
    """The one worker, without labels."""
    assert deployment.group is not None
    return deployment.group.workers[0]


@pytest.fixture
def push(deployment: Deployment, chaos_server: ChaosServer) -> Iterator[Callable[..., None]]:
    """Put messages into a queue, and wait until they were taken and what came after them ran."""
    with redis.Redis.from_url(chaos_server.url) as client:

        def do(*messages: bytes, queue: str = "local") -> None:
            key = f"{deployment.bench.records.instance}:{queue}"
            client.lpush(key, *messages)
            wait_until(lambda: not client.llen(key), "the messages to be taken", timeout=60)
            [after] = deployment.submit()
            assert deployment.bench.ended(after).state is State.SUCCEEDED

        yield do


@contextmanager
def counted(deployment: Deployment, kind: Rejected, times: int = 1) -> Iterator[None]:
    """Within, so many are refused, and the installation's count says so, as ``dispatcher status`` shows it."""

    def tally() -> int:
        rejections = deployment.bench.records.rejections.tallies().get(kind)
        return rejections.count if rejections else 0

    before = tally()
    yield
    wait_until(lambda: tally() >= before + times, f"{times} more refused: {kind}", timeout=30)
    if kind is Rejected.RUN:  # a report may come late by itself, and a doorbell be rung again
        assert tally() == before + times


def forged(deployment: Deployment, **changes: Any) -> Record:
    """A run of ours, not accepted yet, whose spec was changed before it was signed."""
    environment = deployment.environment("local")
    record = deployment.bench.prepare(marked, {"folder": str(deployment.folder)}, environment=environment)
    raw = replace(record.spec, **changes).to_bytes()
    return replace(record, spec_bytes=raw, signature=deployment.bench.keys.sign(record.id, raw))


def refused(deployment: Deployment, record: Record, reason: str) -> None:
    """It ended as a mistake in the set-up that names a reason, and nothing of it ran; it was counted."""
    with counted(deployment, Rejected.RUN):
        accept(deployment, record)
        ended = deployment.bench.ended(record.id)
    assert ended.state is State.CRASHED
    assert ended.outcome is not None
    assert ended.outcome.cause is Cause.CONFIG_ERROR
    assert reason in ended.outcome.message
    assert deployment.starts(record.id) == 0


def accept(deployment: Deployment, record: Record) -> Record:
    """Store a record as it is, as whoever may write records can."""
    return deployment.bench.records.runs.create([record])[0]


def test_a_pickled_message(deployment: Deployment, push: Callable[..., None], tmp_path: Path) -> None:
    """It is dropped unopened, in its body and as a type of content."""
    opened = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (opened,)

    [run_id] = deployment.submit()
    message = json.loads(envelope(ring_for(deployment.bench.ended(run_id))))
    body = base64.b64encode(pickle.dumps(Bomb())).decode()
    types = ["application/x-python-serialize", "application/data", "application/json", "text/plain"]
    push(*(json.dumps({**message, "body": body, "content-type": kind}).encode() for kind in types))
    push(pickle.dumps(Bomb()), b"\x80\x04not json", b"{}", b"[]", b"null")
    assert not opened.exists()


def test_a_message_of_another_task(deployment: Deployment, push: Callable[..., None], worker: Worker) -> None:
    """Celery's own tasks and unknown ones do nothing to any run."""
    pid = worker.process.pid
    record = deployment.unrung()
    message = envelope(ring_for(record))
    names = [b"celery.backend_cleanup", b"celery.accumulate", b"os.system", b"dispatcher.call_on_exit"]
    push(*(message.replace(b"dispatcher.execute", name) for name in names))
    deployment.settle()
    assert worker.process.poll() is None
    assert worker.process.pid == pid
    assert deployment.starts(record.id) == 1


def test_a_doorbell_of_an_unknown_run_and_of_an_ended_one(deployment: Deployment, push: Callable[..., None]) -> None:
    """Forged and replayed: nothing to claim."""
    [run_id] = deployment.submit()
    before = deployment.bench.ended(run_id)
    rung = envelope(ring_for(before))
    body = json.loads(rung)["body"]
    other = base64.b64encode(base64.b64decode(body).replace(run_id.encode(), b"r" + b"0" * 16)).decode()
    push(rung, rung.replace(body.encode(), other.encode()), rung)
    assert deployment.bench.record(run_id).version == before.version
    assert deployment.starts(run_id) == 1


@pytest.mark.parametrize("task", [EXECUTE, CALL_ON_EXIT])
def test_a_doorbell_in_the_wrong_queue(
    deployment: Deployment, push: Callable[..., None], worker: Worker, task: str
) -> None:
    """A worker runs what its labels serve, wherever the message was put, and whatever it says of itself."""
    account: dict[str, Any] = callbacks(deployment.folder)
    environment = LocalEnvironment(labels=["gpu"], **account)
    record = deployment.bench.prepare(marked, {"folder": str(deployment.folder)}, environment=environment)
    accept(deployment, record)
    message = json.loads(envelope(ring_for(record, task)))
    message["headers"]["also_served"] = ["local:gpu"]
    with counted(deployment, Rejected.DOORBELL):
        push(json.dumps(message).encode())
    worker.says(f"Run {record.id}: doorbell refused: it belongs to queue local:gpu")
    assert deployment.bench.record(record.id).state is State.QUEUED
    assert deployment.starts(record.id) == 0
    deployment.bench.records.runs.update(record.id, transitions.request_cancel)


@pytest.mark.parametrize(
    "claims", [{"labels": []}, {"labels": [], "flow": "another"}], ids=["like ours", "like nothing"]
)
def test_a_doorbell_that_tells_of_another_kind(
    deployment: Deployment, push: Callable[..., None], worker: Worker, claims: dict[str, Any]
) -> None:
    """A worker takes runs for what was like them before; not those that aren't."""
    deployment.settle()
    account: dict[str, Any] = callbacks(deployment.folder)
    environment = LocalEnvironment(labels=["gpu"], **account)
    record = deployment.bench.prepare(marked, {"folder": str(deployment.folder)}, environment=environment)
    accept(deployment, record)
    message = json.loads(envelope(ring_for(record)))
    arguments, words, rest = json.loads(base64.b64decode(message["body"]))
    body = base64.b64encode(json.dumps([arguments, words | claims, rest]).encode()).decode()
    with counted(deployment, Rejected.DOORBELL):
        push(json.dumps({**message, "body": body}).encode())
    worker.says(f"Run {record.id}: doorbell refused: it belongs to queue local:gpu")
    assert deployment.bench.record(record.id).state is State.QUEUED
    assert deployment.starts(record.id) == 0
    deployment.bench.records.runs.update(record.id, transitions.request_cancel)
    for _ in range(4):  # nor has it learned anything from it
        [after] = deployment.submit()
        assert deployment.bench.ended(after).state is State.SUCCEEDED


def test_a_record_that_tells_another_kind_than_its_spec(
    deployment: Deployment, push: Callable[..., None], chaos_server: ChaosServer
) -> None:
    """A user who may write records can have a run claimed as another kind; it is never opened."""
    for _ in range(4):  # both pool processes know the kind
        [ours] = deployment.submit()
        deployment.bench.ended(ours)
    environment = LocalEnvironment(labels=["gpu"], **callbacks(deployment.folder))
    record = deployment.bench.prepare(marked, {"folder": str(deployment.folder)}, environment=environment)
    accept(deployment, record)
    with redis.Redis.from_url(chaos_server.url) as client:
        key = f"{deployment.bench.records.instance}::run:"
        client.hset(f"{key}{record.id}", "kind", client.hget(f"{key}{ours}", "kind"))
    message = envelope(ring_for(record)).replace(b"local:gpu", b"local")
    body = json.loads(message)["body"]
    arguments, words, rest = json.loads(base64.b64decode(body))
    changed = base64.b64encode(json.dumps([arguments, words | {"labels": []}, rest]).encode()).decode()
    with counted(deployment, Rejected.RUN):
        push(message.replace(body.encode(), changed.encode()))
        ended = deployment.bench.ended(record.id)
    assert ended.outcome is not None
    assert (ended.state, ended.outcome.cause) == (State.CRASHED, Cause.CONFIG_ERROR)
    assert "another kind than its spec" in ended.outcome.message
    assert deployment.starts(record.id) == 0


def test_a_signature_that_has_expired(deployment: Deployment) -> None:
    refused(deployment, forged(deployment, expires=deployment.bench.records.runs.now() - 60.0), "expired 6")


def test_an_unknown_key(deployment: Deployment) -> None:
    """Its id is in no ring of keys here."""
    refused(deployment, forged(deployment, key_id="k9"), "'k9'")


def test_a_spec_of_another_run(deployment: Deployment) -> None:
    """A spec that was signed for one run is refused under the name of another, whichever key signed it."""
    [run_id] = deployment.submit()
    theirs = deployment.bench.ended(run_id)
    copied = replace(forged(deployment), spec_bytes=theirs.spec_bytes, signature=theirs.signature)
    refused(deployment, copied, "changed on its way")
    signed = forged(deployment)
    raw = theirs.spec_bytes
    resigned = replace(signed, spec_bytes=raw, signature=deployment.bench.keys.sign(signed.id, raw))
    refused(deployment, resigned, f"carries the spec of run {run_id}")
    assert deployment.starts(run_id) == 1


def test_a_run_s_credential_on_another_run(deployment: Deployment, worker: Worker) -> None:
    """A container that reports about another's run, or about an attempt of its own that is over, isn't heard."""
    mine, theirs = deployment.submit(2, backend="fake", seconds=8.0)
    deployment.started([mine, theirs])
    record = deployment.bench.record(mine)
    assert record.request is not None
    token = deployment.bench.keys.token(mine, 1, record.request["epoch"])
    lie = Outcome(cause=Cause.USER_ERROR, message="a lie")
    inbox = deployment.bench.records.inbox
    with counted(deployment, Rejected.REPORT, 2):
        for run_id, attempt in ((theirs, 1), (mine, 2)):
            report = Report(run_id=run_id, attempt=attempt, kind=ReportKind.EXITED, outcome=lie)
            inbox.report(shard_of("fake", run_id), report.to_entry(token))
    worker.says(f"a report on run {theirs} was not made by the attempt it names")
    worker.says(f"attempt 2 of run {mine} is closed")
    credentials = AttemptCredentials.of(record, deployment.bench.keys.seal(record))
    with pytest.raises(SealBroken, match=f"seals for attempt 1 of run {mine} alone"):
        credentials.seal(deployment.bench.record(theirs))
    assert not hasattr(credentials, "sign")
    deployment.settle()
    assert {deployment.bench.record(run_id).state for run_id in (mine, theirs)} == {State.SUCCEEDED}
    deployment.torn_down()


@flow
def gives(value: str) -> set[str]:
    return {value}


def test_a_result_that_its_runner_did_not_seal(
    deployment: Deployment, chaos_server: ChaosServer, tmp_path: Path
) -> None:
    """Whoever can write records can't have a client open their pickle: neither bare nor sealed for another run."""
    environment = LocalEnvironment()
    opened = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (opened,)

    with Dispatcher(settings=deployment.bench.settings) as client, redis.Redis.from_url(chaos_server.url) as server:
        runs = [client.submit(gives, {"value": value}, environment=environment) for value in ("mine", "theirs")]
        mine, theirs = ([*run.result(timeout=60)] for run in runs)
        assert [mine, theirs] == [["mine"], ["theirs"]]
        key = f"{deployment.bench.records.instance}::run:"
        outcome = json.loads(server.hget(f"{key}{runs[1].id}", "outcome") or b"")
        bomb = pickle.dumps(Bomb())
        bare = {"inline": base64.b64encode(bomb).decode(), "digest": hashlib.sha256(bomb).hexdigest()}
        for lie in (outcome["result"], {**outcome["result"], **bare}):
            server.hset(f"{key}{runs[0].id}", "outcome", json.dumps({**outcome, "result": lie}))
            with (
                counted(deployment, Rejected.RESULT),
                pytest.raises(SealBroken, match=f"sealed by attempt 1 of run {runs[0].id}"),
            ):
                client.get(runs[0].id).result(timeout=10)
        assert not opened.exists()
