"""Row 34 of the fault matrix: secrets of a container, and values that workers sealed for one run, used for others.

On a server with exactly the users of ``docs/security.md``, and an API server of Kubernetes in this process.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, KubernetesJobEnvironment, flow
from dispatcher.errors import InvalidInput
from dispatcher.runs import indexes
from dispatcher.runs.attempt import object_name, shard_of
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization.seals import mac
from dispatcher.settings import Settings
from tests.integration.acl_server import AclServer
from tests.integration.attacker import Attacker
from tests.integration.workers import QUICK, Bench, Worker
from tests.kubernetes_api import FakeApiServer, FakeCluster, kubeconfig
from tests.kubernetes_node import URL
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.row(34), pytest.mark.timeout(300)]


@flow
def notes(path: str) -> int:
    with Path(path).open("a") as file:
        file.write("run\n")
    return 1


@pytest.fixture
def cluster(acl_server: AclServer, tmp_path: Path) -> Iterator[FakeCluster]:
    """An API server, and a worker that serves it and the local backend; no pod is started."""
    with FakeApiServer() as serving:
        config = kubeconfig(tmp_path, serving.port)
        environ = {"KUBECONFIG": str(config), "DISPATCHER__KUBERNETES__URL": URL, "KUBERNETES_SERVICE_HOST": ""}
        worker = Worker(
            acl_server.url("worker"), acl_server.directory, timing={**QUICK, "poll": 0.2}, environ=environ,
            backends=["kubernetes", "local"], concurrency=1,
        )  # fmt: skip
        try:
            worker.says("is ready")
            yield serving.cluster
        finally:
            worker.end()
            print(worker.output)  # noqa: T201 - pytest shows it where a test failed


def given(cluster: FakeCluster, name: str) -> dict[str, str]:
    """Return the secret variables of a container."""
    wait_until(lambda: ("secrets", "default", name) in cluster.objects, "the Secret", timeout=60)
    variables: dict[str, str] = json.loads(cluster.get("secrets", name)["stringData"]["variables.json"])
    return variables


def signatures(key: bytes, record: Record) -> Iterator[str]:
    """Return signatures of a spec by a key that wasn't made for that, in our own formats."""
    spec, run_id = record.spec_bytes, record.id
    for derived in (key, mac(key, "spec", run_id), mac(key, "seal", run_id, 1)):
        for data in (spec, hashlib.sha256(spec).digest(), hashlib.sha256(spec).hexdigest().encode()):
            yield hmac.digest(derived, data, "sha256").hex()
        yield mac(derived, "spec", run_id, spec).hex()
    yield key.hex()


def test_what_a_container_is_given_signs_no_spec_for_its_own_run(
    bench: Bench, attacker: Attacker, cluster: FakeCluster, tmp_path: Path
) -> None:
    """Regression: the key in the container could sign a spec of the same run for the local backend."""
    path = tmp_path / "runs"
    run_id = bench.submit(notes, {"path": str(path)}, environment=KubernetesJobEnvironment(image="flows:1"))
    variables = given(cluster, object_name(run_id, 1))
    held = {name: word for name, word in variables.items() if name != "DISPATCHER__URL"}
    assert held.keys() == {"DISPATCHER__RUN__SPEC", "DISPATCHER__RUN__SEAL", "DISPATCHER__RUN__TOKEN"}
    local = bench.prepare(notes, {"path": str(path)})
    raw = local.spec_bytes.replace(local.id.encode(), run_id.encode())
    forged = local.but(id=run_id, spec_bytes=raw)
    tried = 0
    for word in held.values():
        for key in (bytes.fromhex(word), word.encode()):
            for signature in signatures(key, forged):
                attacker.forged(forged, signature=signature)
                attacker.wait(run_id)
                ended = bench.ended(run_id)
                assert ended.outcome is not None
                assert (ended.state, ended.outcome.cause) == (State.CRASHED, Cause.CONFIG_ERROR)
                assert "isn't signed with our key" in ended.outcome.message
                tried += 1
    assert tried == 3 * 2 * 13
    assert not path.exists()


def test_a_handle_that_was_sealed_for_another_run_ends_nobodys_job(
    bench: Bench, attacker: Attacker, cluster: FakeCluster
) -> None:
    """As the infrastructure of a cancelled run, as the leftover of an ended one, or of another attempt."""
    environment = KubernetesJobEnvironment(image="flows:1")
    honest = bench.submit(notes, {"path": "/x"}, environment=environment)
    theirs = bench.until(honest, lambda record: record.request and record.handle, "its Job")
    left: dict[str, Any] = {"attempt": 1, "request": theirs.request, "handle": theirs.handle, "ended": 1.0}
    ids = []
    for leftover in (left, {**left, "handle": None}):
        ended = bench.prepare(notes, {"path": "/x"}, environment=environment)
        fields = {"state": "SUCCEEDED", "outcome": "{}", "ended_at": repr(time.time())}
        ids.append(attacker.forged(ended, **fields, leftovers=json.dumps([leftover]), signature=ended.signature))
        attacker.server.zadd(attacker.keys.index(indexes.teardown("kubernetes")), {ended.id: 7})
    cancelled = bench.prepare(notes, {"path": "/x"}, environment=environment)
    shard = shard_of("kubernetes", cancelled.id)
    fields = {"state": "CANCELLING", "owner": shard, "epoch": "1", "handle": json.dumps(theirs.handle)}
    ids.append(attacker.forged(cancelled, **fields, signature=cancelled.signature))
    attacker.server.zadd(attacker.keys.index(indexes.owned(shard)), {cancelled.id: 7})
    own = attacker.stored(honest)  # what it has asked for, as what a later attempt has left
    attacker.write(honest, {**own, b"leftovers": json.dumps([{**left, "attempt": 2}])})
    attacker.server.zadd(attacker.keys.index(indexes.teardown("kubernetes")), {honest: 99})
    for run_id in (*ids, honest):
        bench.until(run_id, lambda record: not record.leftovers, "what is left to be forgotten", timeout=60)
    for run_id in ids:
        assert bench.ended(run_id).terminal
    assert ("jobs", "default", object_name(honest, 1)) in cluster.objects
    assert not [request for request in cluster.requests if request.method == "DELETE"]


def test_a_client_whose_key_is_bound_is_told_at_submit(acl_server: AclServer) -> None:
    keys = {"team": {"secret": "a secret of another team of these tests", "backends": ["local", "remote"]}}
    settings = Settings.load(url=acl_server.url("client"), signing_keys=json.dumps(keys))
    with (
        Dispatcher(settings=settings) as client,
        pytest.raises(InvalidInput, match="key 'team' may not use backend 'kubernetes', only local, remote"),
    ):
        client.submit(notes, {"path": "/x"}, environment=KubernetesJobEnvironment(image="flows:1"))
    assert not acl_server.admin.keys("production::run:*")
