"""Row 34 of the fault matrix: records forged by an attacker with the clients' Redis user and no signing key.

On a server with exactly the users of ``docs/security.md``, with real workers, and an API server of Kubernetes in this
process. Nothing is started, created or deleted that no submitter signed, and nothing twice.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dispatcher import KubernetesJobEnvironment, LocalEnvironment, flow
from dispatcher.records.redis import open_redis
from dispatcher.runs import indexes
from dispatcher.runs.attempt import object_name, shard_of
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.spec import DAY
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing
from dispatcher.support.ids import new_id
from tests.integration.acl_server import INSTANCE, AclServer
from tests.integration.attacker import Attacker
from tests.integration.workers import KEYS, Bench, Worker
from tests.kubernetes_api import FakeApiServer, FakeCluster, kubeconfig
from tests.kubernetes_node import URL, Node
from workers.reconciler.signatures import sweep_signatures

pytestmark = [pytest.mark.integration, pytest.mark.row(34), pytest.mark.timeout(300)]

StartWorker = Callable[..., Worker]


@flow
def notes(path: str) -> int:
    with Path(path).open("a") as file:
        file.write("run\n")
    return 1


@flow
def fails(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("run\n")
    raise ValueError("no luck")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeApiServer() as serving:
        serving.cluster.port = serving.port  # type: ignore[attr-defined]
        yield serving.cluster


@pytest.fixture
def start_kubernetes(start: StartWorker, cluster: FakeCluster, tmp_path: Path) -> StartWorker:
    """Starts a worker for the API server."""
    config = kubeconfig(tmp_path, cluster.port)  # type: ignore[attr-defined]
    environ = {"KUBECONFIG": str(config), "DISPATCHER__KUBERNETES__URL": URL, "KUBERNETES_SERVICE_HOST": ""}

    def launch(**options: Any) -> Worker:
        environ_of_its_own = {**environ, **options.pop("environ", {})}
        return start(backends=["kubernetes"], concurrency=1, environ=environ_of_its_own, **options)

    return launch


def job() -> KubernetesJobEnvironment:
    return KubernetesJobEnvironment(image="flows:1")


def refused(bench: Bench, run_id: str, reason: str) -> Record:
    """Check that the run ended with a configuration error in its first attempt."""
    record = bench.ended(run_id, timeout=60)
    assert record.outcome is not None
    assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.CONFIG_ERROR), record.outcome
    assert reason in record.outcome.message
    assert record.attempt == 1
    return record


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def settled(bench: Bench, path: Path) -> None:
    """Wait until a later, legitimate run has ended, so that all earlier doorbells were handled."""
    for _ in range(2):
        run_id = bench.submit(notes, {"path": str(path.with_suffix(".others"))})
        assert bench.ended(run_id).state is State.SUCCEEDED


def test_an_unsigned_run_in_a_container_is_never_created(
    bench: Bench, attacker: Attacker, start_kubernetes: StartWorker, cluster: FakeCluster
) -> None:
    """The clients' user may push to no queue of that backend, so the workers have to find the record."""
    record = bench.prepare(notes, {"path": "/x"}, environment=job(), retries=Retry(1000, on={"config_error"}))
    run_id = attacker.forged(record)
    start_kubernetes()
    refused(bench, run_id, "isn't signed with our key")
    assert not [key for key in cluster.objects if key[0] in {"jobs", "secrets"}]


def test_an_unsigned_run_is_not_repeated_whatever_its_policy(
    bench: Bench, attacker: Attacker, start: StartWorker, tmp_path: Path
) -> None:
    """Regression: 3,950 claims in ten seconds."""
    path = tmp_path / "runs"
    record = bench.prepare(notes, {"path": str(path)}, retries=Retry(1000, on={"config_error", "worker_lost"}))
    run_id = attacker.forged(record)
    start()
    attacker.wait(run_id)
    ended = refused(bench, run_id, "isn't signed with our key")
    assert ended.epoch <= 2
    settled(bench, path)
    assert (lines(path), bench.record(run_id).version) == (0, ended.version)


def test_what_a_container_holds_signs_no_run(
    bench: Bench, attacker: Attacker, start: StartWorker, tmp_path: Path
) -> None:
    """Its seal, its token and the digest, as keys and as signatures, in place of a submitter's."""
    path = tmp_path / "runs"
    start()
    for use in range(4):
        record = bench.prepare(notes, {"path": str(path)})
        held = [bench.keys.attempt_seal(record.id, 1).key, bytes.fromhex(bench.keys.token(record.id, 1, 1))]
        key = held[use % 2]
        signed = (record.spec_bytes, b"spec:" + record.spec_bytes)[use // 2]
        run_id = attacker.forged(record, signature=hmac.digest(key, signed, "sha256").hex())
        attacker.wait(run_id)
        refused(bench, run_id, "isn't signed with our key")
    settled(bench, path)
    assert lines(path) == 0


BODY: dict[str, Any] = {
    "cluster": "", "namespace": "other-namespace", "container": "x", "digest": None,
    "job": {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pwn", "labels": {"instance": INSTANCE}},
        "spec": {"template": {"spec": {"hostPID": True, "containers": [{"name": "x", "image": "evil"}]}}},
    },
}  # fmt: skip


def test_a_forged_request_is_not_sent(
    bench: Bench, attacker: Attacker, start_kubernetes: StartWorker, cluster: FakeCluster
) -> None:
    """Neither of an unsigned run nor of a signed one, nor a request that was copied from another run."""
    cluster.create("secrets", {"metadata": {"name": "pwn"}, "data": {"password": "aHVudGVyMg=="}}, "default")
    start_kubernetes()
    honest = bench.submit(notes, {"path": "/x"}, environment=job())
    copied = bench.until(honest, lambda record: record.request and record.handle, "its Job").request
    ids = []
    for body, signed in ((BODY, False), (BODY, True), ({**BODY, "namespace": "default"}, True), (None, True)):
        record = bench.prepare(notes, {"path": "/x"}, environment=job())
        shard = shard_of("kubernetes", record.id)
        request = copied if body is None else {"shard": shard, "epoch": 1, "body": body}
        fields = {"state": "PROVISIONING", "owner": shard, "epoch": "1", "request": json.dumps(request)}
        signature = record.signature if signed else "00" * 32
        ids.append(attacker.forged(record, **fields, signature=signature))
        attacker.server.zadd(attacker.keys.index(indexes.owned(shard)), {record.id: 7})
    for run_id in ids:
        refused(bench, run_id, "")
    assert [key for key in cluster.objects if key[0] == "jobs"] == [("jobs", "default", object_name(honest, 1))]
    assert cluster.get("secrets", "pwn")["data"] == {"password": "aHVudGVyMg=="}
    bench.records.runs.update(honest, lambda record, now: None)


def test_forged_leftovers_and_handles_end_nobodys_jobs(
    bench: Bench, attacker: Attacker, start_kubernetes: StartWorker, cluster: FakeCluster
) -> None:
    """A Job of another namespace, and one of this namespace without our label, by name and by UID."""
    theirs = cluster.create("jobs", {"metadata": {"name": "billing"}, "spec": {}}, "default")
    other = cluster.create("jobs", {"metadata": {"name": "billing"}, "spec": {}}, "other-namespace")
    worker = start_kubernetes()
    ids = []
    for made, namespace in ((theirs, "default"), (other, "other-namespace")):
        record = bench.prepare(notes, {"path": "/x"}, environment=job())
        shard = shard_of("kubernetes", record.id)
        handle = {"cluster": "", "namespace": namespace, "name": "billing", "uid": made["metadata"]["uid"]}
        handle |= {"container": "x", "instance": INSTANCE}
        request = {
            "shard": shard,
            "epoch": 1,
            "body": {**BODY, "namespace": namespace, "job": {"metadata": {"name": "billing"}}},
        }
        left = [
            {"attempt": 1, "request": {"shard": shard, "epoch": 1}, "handle": handle, "ended": 1.0, "claimed": False},
            {"attempt": 2, "request": request, "handle": None, "ended": 1.0, "claimed": False},
        ]
        run_id = attacker.forged(record, state="SUCCEEDED", leftovers=json.dumps(left), outcome="{}",
                                 ended_at=repr(time.time()), signature=record.signature)  # fmt: skip
        attacker.server.zadd(attacker.keys.index(indexes.teardown("kubernetes")), {run_id: 7})
        ids.append(run_id)
        watched = bench.prepare(notes, {"path": "/x"}, environment=job())
        shard = shard_of("kubernetes", watched.id)
        fields = {"state": "CANCELLING", "owner": shard, "epoch": "1", "handle": json.dumps(handle)}
        ids.append(attacker.forged(watched, **fields, signature=watched.signature))
        attacker.server.zadd(attacker.keys.index(indexes.owned(shard)), {watched.id: 7})
    for run_id in ids:
        bench.until(run_id, lambda record: record.terminal and not record.leftovers, "what is left to be forgotten")
    worker.says("wasn't stored by a worker that has our keys")
    assert cluster.get("jobs", "billing")["metadata"]["uid"] == theirs["metadata"]["uid"]
    assert ("jobs", "other-namespace", "billing") in cluster.objects
    assert not [request for request in cluster.requests if request.method == "DELETE"]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_record_that_is_put_back_starts_nothing(
    bench: Bench, attacker: Attacker, start: StartWorker, tmp_path: Path, retries: int
) -> None:
    """Regression: one submit ran four times. The record is restored as accepted, in each state in which something may
    start, and as the next attempt; other runs of its kind were claimed without a read before."""
    path = tmp_path / "runs"
    worker = start(concurrency=1)
    for _ in range(4):
        bench.ended(bench.submit(notes, {"path": str(path.with_suffix(".others"))}, retries=retries))
    run_id = bench.submit(notes, {"path": str(path)}, retries=retries)
    accepted = attacker.stored(run_id)
    bench.ended(run_id)
    assert lines(path) == 1
    fresh = {**accepted, b"state": b"QUEUED", b"version": b"1", b"epoch": b"0", b"attempt": b"1"}
    for gone in (b"outcome", b"ended_at", b"started_at", b"owner", b"holder", b"change", b"exit_call"):
        fresh.pop(gone, None)
    for _ in range(4):
        attacker.write(run_id, fresh, all=time.time(), open=time.time())
        attacker.wait(run_id)
        refused(bench, run_id, "its signed spec was used up to")
    due = {b"state": b"AWAITING_RETRY", b"due_at": b"1.0", b"version": b"9", b"attempt": b"2", b"retries_used": b"1"}
    attacker.write(run_id, {**fresh, **due}, due=1.0, open=1.0)
    bench.until(run_id, lambda record: record.terminal, "its end")
    attacker.write(run_id, {**fresh, b"attempt": b"2", b"version": b"9"}, open=1.0)
    attacker.wait(run_id)
    bench.until(run_id, lambda record: record.terminal, "its end")
    settled(bench, path)
    assert lines(path) == 1
    assert worker.process.poll() is None


def test_each_attempt_that_its_policy_allows_runs_once(bench: Bench, start: StartWorker, tmp_path: Path) -> None:
    """The memory of used specs prevents no legitimate attempt."""
    path = tmp_path / "runs"
    start(concurrency=1)
    record = bench.ended(bench.submit(fails, {"path": str(path)}, retries=Retry(2, delay=0)))
    assert (record.state, record.attempt, lines(path)) == (State.FAILED, 3, 3)


def test_the_memory_of_used_specs_is_out_of_reach_and_small(
    bench: Bench, acl_server: AclServer, attacker: Attacker, start: StartWorker, tmp_path: Path
) -> None:
    start(concurrency=1)
    bench.ended(bench.submit(notes, {"path": str(tmp_path / "runs")}))
    [used] = acl_server.admin.keys(f"{INSTANCE}::engine:used:*")
    for command in (("HGETALL", used), ("DEL", used), ("HSET", used, "x", "1"), ("EXPIRE", used, "1")):
        with pytest.raises(Exception, match="permission"):
            attacker.server.execute_command(*command)
    assert acl_server.admin.expiretime(used) > (int(used.rpartition(b":")[2]) + 1) * DAY, (
        "longer than any that it holds"
    )
    before = acl_server.admin.memory_usage(used, samples=0)
    acl_server.admin.hset(used, mapping={new_id(): "1" for _ in range(5000)})
    each = (acl_server.admin.memory_usage(used, samples=0) - before) / 5000
    assert each <= 100, f"{each:.0f} bytes for each run"


def test_a_run_that_waited_longer_than_its_signature_holds(
    bench: Bench, acl_server: AclServer, start: StartWorker, tmp_path: Path
) -> None:
    """Both if a worker takes it and, by a clock that is two hours ahead, if none serves its queue."""
    path = tmp_path / "runs"

    def accepted(expires: float, *labels: str) -> str:
        record = bench.prepare(notes, {"path": str(path)}, environment=LocalEnvironment(labels=labels))
        raw = replace(record.spec, expires=expires).to_bytes()
        signed = record.but(spec_bytes=raw, signature=bench.keys.sign(record.id, raw))
        return bench.records.runs.create([signed])[0].id

    taken, unserved = accepted(time.time() - 60), accepted(time.time() + 3600, "nobody")
    start()
    refused(bench, taken, "the run waited too long")
    assert sweep_signatures(bench.records) == 0
    later = open_redis(acl_server.url("worker"), clock_offset=7200.0)
    later.runs.check = bench.keys.check
    assert sweep_signatures(later) == 1
    later.close()
    refused(bench, unserved, "the run waited too long")
    assert lines(path) == 0


def test_a_key_that_is_bound_to_backends(
    bench: Bench, attacker: Attacker, start_kubernetes: StartWorker, cluster: FakeCluster
) -> None:
    """The workers' file binds it; the submitter writes the record itself."""
    bound = {**KEYS, "team": {"secret": "a secret of another team of these tests", "backends": ["local", "remote"]}}
    team = KeyRing({"team": bound["team"]})
    record = bench.prepare(notes, {"path": "/x"}, environment=job())
    raw = record.spec_bytes.replace(b'"key_id":"k1"', b'"key_id":"team"')
    run_id = attacker.forged(record.but(spec_bytes=raw), signature=team.sign(record.id, raw))
    start_kubernetes(environ={"DISPATCHER__SIGNING_KEYS": json.dumps(bound)})
    refused(bench, run_id, "key 'team', which may not use backend 'kubernetes'")
    assert not [key for key in cluster.objects if key[0] in {"jobs", "secrets"}]


def test_an_old_record_with_its_sealed_request_makes_no_second_job(
    bench: Bench,
    acl_server: AclServer,
    attacker: Attacker,
    start_kubernetes: StartWorker,
    cluster: FakeCluster,
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs"
    folder = tmp_path / "node"
    folder.mkdir()
    node = Node(cluster, acl_server.url("worker"), folder)
    try:
        start_kubernetes()
        run_id = bench.submit(notes, {"path": str(path)}, environment=job())
        bench.until(run_id, lambda record: record.request is not None, "its request")
        old = attacker.stored(run_id)
        bench.ended(run_id, timeout=90)
        bench.until(run_id, lambda record: not record.leftovers, "its teardown", timeout=60)
        jobs = len(node.started)
        old = {**old, b"state": b"PROVISIONING", b"owner": shard_of("kubernetes", run_id).encode()}
        for name in (b"handle", b"started_at", b"outcome", b"holder"):
            old.pop(name, None)
        attacker.write(run_id, old, open=time.time())
        attacker.server.zadd(attacker.keys.index(indexes.owned(shard_of("kubernetes", run_id))), {run_id: 99})
        refused(bench, run_id, "its signed spec was used up to 'x'")
        assert (len(node.started), lines(path)) == (jobs, 1)
    finally:
        node.close()
