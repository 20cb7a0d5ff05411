"""Real workers, and real runners as processes, with an API server in this process; the cloud tests do the same on a
real cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dispatcher import KubernetesJobEnvironment, context
from dispatcher.inspection.explain import explain
from dispatcher.records.rejections import Rejected
from dispatcher.runs import transitions
from dispatcher.runs.attempt import object_name
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import KeyRing
from tests.integration.test_containers import cause_of, fail, greet, kinds, note_and_sleep, result_of
from tests.integration.workers import Bench, Worker
from tests.kubernetes_api import FakeCluster, StatusError, kubeconfig
from tests.kubernetes_node import URL, Node
from tests.kubernetes_proxy import FaultProxy
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]


@pytest.fixture
def node(cluster: FakeCluster, server_url: str, tmp_path: Path) -> Iterator[Node]:
    folder = tmp_path / "node"
    folder.mkdir()
    node = Node(cluster, server_url, folder)
    yield node
    node.close()


@pytest.fixture
def start(start_worker: StartWorker, node: Node, proxy: FaultProxy, tmp_path: Path) -> StartWorker:
    config = kubeconfig(tmp_path, proxy.port)
    environ = {"KUBECONFIG": str(config), "DISPATCHER__KUBERNETES__URL": URL, "KUBERNETES_SERVICE_HOST": ""}

    def begin(**options: Any) -> Worker:
        return start_worker(backends=["kubernetes"], concurrency=1, timing={"poll": 0.1}, environ=environ, **options)

    return begin


def env(**options: Any) -> KubernetesJobEnvironment:
    return KubernetesJobEnvironment(**{"image": "flows:1", **options})


def gone(bench: Bench, run_id: str, cluster: FakeCluster) -> None:
    """Check that nothing of the run is left in the cluster, and that its record says so."""
    bench.until(run_id, lambda record: not record.leftovers, "confirmed teardown", timeout=90)
    assert not [key for key in cluster.objects if key[2].startswith("flow-")]


def pod_of(cluster: FakeCluster, run_id: str, attempt: int = 1) -> dict[str, Any]:
    return cluster.get("pods", f"{object_name(run_id, attempt)}-pod")


def test_a_run_goes_its_way_in_three_requests(bench: Bench, start: StartWorker, cluster: FakeCluster) -> None:
    start()
    run_id = bench.submit(greet, {"name": "you"}, environment=env())
    record = bench.ended(run_id, timeout=90)
    assert record.state is State.SUCCEEDED, record.outcome
    assert result_of(bench, record) == "hello you, attempt 1"
    expected = ["queued", "claimed", "provisioning", "pending", "started", "exited"]
    assert sorted(kinds(bench, run_id)) == sorted(expected)
    assert {"printed", "logged"} <= set(bench.lines(run_id))
    gone(bench, run_id, cluster)
    asked = [
        (request.method, request.path.partition("/default/")[2].split("/")[0])
        for request in cluster.requests
        if request.method != "GET"
    ]
    assert asked == [("POST", "jobs"), ("POST", "secrets"), ("DELETE", "jobs")]
    assert not [request for request in cluster.requests if request.method == "GET" and "flow-" in request.path]


def test_a_failure_is_repeated_in_a_job_of_its_own(
    bench: Bench, start: StartWorker, cluster: FakeCluster, node: Node
) -> None:
    start()
    run_id = bench.submit(fail, environment=env(), retries=1)
    record = bench.ended(run_id, timeout=90)
    assert (record.state, record.attempt) == (State.FAILED, 2)
    assert node.started == [object_name(run_id, 1), object_name(run_id, 2)]
    gone(bench, run_id, cluster)


@pytest.mark.parametrize(
    ("image", "cause"), [("image-pull:1", Cause.IMAGE_PULL), ("unschedulable:1", Cause.UNSCHEDULABLE)]
)
def test_what_keeps_it_from_starting_is_seen_while_it_waits(
    bench: Bench, start: StartWorker, cluster: FakeCluster, image: str, cause: Cause
) -> None:
    """``start_within`` would end it with this cause (tests/unit/test_transitions.py)."""
    start()
    run_id = bench.submit(greet, {"name": "you"}, environment=env(image=image))
    bench.until(run_id, lambda record: record.last_cause is cause, f"{cause}", timeout=90)
    bench.records.runs.update(run_id, transitions.request_cancel)
    assert bench.ended(run_id, timeout=90).state is State.CANCELLED
    gone(bench, run_id, cluster)


def test_what_will_never_start_ends_at_once(bench: Bench, start: StartWorker, cluster: FakeCluster) -> None:
    start()
    run_id = bench.submit(greet, {"name": "you"}, environment=env(image="invalid-name:1"))
    record = bench.ended(run_id, timeout=90)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.CONFIG_ERROR)
    gone(bench, run_id, cluster)


def begun(bench: Bench, start: StartWorker, path: Path, cluster: FakeCluster, **options: Any) -> tuple[str, int]:
    """Start a run; return its id and its flow's process once it is watched."""
    start()
    environment = options.pop("environment", env())
    run_id = bench.submit(note_and_sleep, {"path": str(path), "seconds": 60}, environment=environment, **options)
    wait_until(lambda: path.exists() and path.read_text().strip(), "the flow's start", timeout=90)
    wait_until(lambda: sum("watch" in request.query for request in cluster.requests) >= 3, "the watches", timeout=90)
    return run_id, int(path.read_text())


def test_a_cancel_lets_on_exit_run_and_leaves_nothing(
    bench: Bench, start: StartWorker, cluster: FakeCluster, tmp_path: Path
) -> None:
    path = tmp_path / "told"

    def on_exit() -> None:
        path.write_text(str(context.state))

    run_id, _ = begun(bench, start, tmp_path / "begun", cluster, environment=env(on_exit=on_exit))
    bench.records.runs.update(run_id, partial(transitions.request_cancel))
    assert bench.ended(run_id, timeout=90).state is State.CANCELLED
    assert path.read_text() == "CANCELLED"
    gone(bench, run_id, cluster)


def test_an_oom_kill_is_the_cause(
    bench: Bench, start: StartWorker, cluster: FakeCluster, node: Node, tmp_path: Path
) -> None:
    run_id, pid = begun(bench, start, tmp_path / "begun", cluster)
    node.out_of_memory.add(object_name(run_id, 1))
    os.killpg(pod_of(cluster, run_id)["status"]["pid"], signal.SIGKILL)
    record = bench.ended(run_id, timeout=90)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.OOM_KILLED)
    assert record.outcome is not None
    assert record.outcome.exit_code == 137
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the flow's end")
    gone(bench, run_id, cluster)


def test_a_job_that_somebody_deletes_ends_its_run(
    bench: Bench, start: StartWorker, cluster: FakeCluster, tmp_path: Path
) -> None:
    run_id, pid = begun(bench, start, tmp_path / "begun", cluster)
    os.kill(pid, signal.SIGSTOP)  # it can't report
    try:
        cluster.delete("jobs", object_name(run_id, 1))
        pod = pod_of(cluster, run_id)
        os.killpg(pod["status"]["pid"], signal.SIGKILL)
        record = bench.ended(run_id, timeout=90)
    finally:
        with_left(pid)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.KILLED)
    gone(bench, run_id, cluster)


def with_left(pid: int) -> None:
    """Let a stopped process end."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


def test_containers_outlive_their_worker(
    bench: Bench, start: StartWorker, cluster: FakeCluster, node: Node, tmp_path: Path
) -> None:
    first = start()
    path = tmp_path / "begun"
    run_id = bench.submit(note_and_sleep, {"path": str(path), "seconds": 3}, environment=env())
    wait_until(path.exists, "the flow's start", timeout=90)
    first.process.kill()
    start()
    record = bench.ended(run_id, timeout=90)
    assert record.state is State.SUCCEEDED, record.outcome
    assert kinds(bench, run_id).count("exited") == 1
    assert node.started == [object_name(run_id, 1)]
    gone(bench, run_id, cluster)


@pytest.mark.row(22)
@pytest.mark.parametrize("path", ["/jobs", "/secrets"])
@pytest.mark.parametrize("kind", ["lost_reply", "cut", "truncate"])
def test_a_lost_reply_makes_no_second_job(
    kind: str, path: str, bench: Bench, start: StartWorker, cluster: FakeCluster, proxy: FaultProxy, node: Node
) -> None:
    proxy.inject(kind, "POST", path)
    start()
    run_id = bench.submit(greet, {"name": "you"}, environment=env())
    record: Record = bench.ended(run_id, timeout=90)
    assert record.state is State.SUCCEEDED, record.outcome
    assert node.started == [object_name(run_id, 1)]
    gone(bench, run_id, cluster)


@pytest.mark.row(23)
def test_a_busy_server_is_asked_later(
    bench: Bench, start: StartWorker, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    proxy.inject("status", "POST", "/jobs", status=429, headers={"Retry-After": "1"})
    proxy.inject("status", "POST", "/jobs", status=500, times=2, message="etcdserver: request timed out")
    start()
    run_id = bench.submit(greet, {"name": "you"}, environment=env())
    assert bench.ended(run_id, timeout=90).state is State.SUCCEEDED
    assert len(proxy.triggered) == 3
    gone(bench, run_id, cluster)


def test_an_exhausted_quota_is_waited_for(bench: Bench, start: StartWorker, cluster: FakeCluster) -> None:
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", "exceeded quota: jobs")
    start()
    run_id = bench.submit(greet, {"name": "you"}, environment=env())
    bench.until(run_id, lambda record: record.last_cause is Cause.QUOTA, "the quota", timeout=90)
    del cluster.errors["POST", "jobs"]
    assert bench.ended(run_id, timeout=90).state is State.SUCCEEDED


def test_what_the_worker_may_not_do_ends_the_attempt(bench: Bench, start: StartWorker, cluster: FakeCluster) -> None:
    cluster.errors["POST", "jobs"] = StatusError(403, "Forbidden", 'jobs.batch is forbidden: User "x" cannot create')
    cluster.allowed = False
    start()
    record = bench.ended(bench.submit(greet, {"name": "you"}, environment=env()), timeout=90)
    assert cause_of(record) is Cause.CONFIG_ERROR
    assert record.outcome is not None
    assert "may not create jobs in namespace default" in record.outcome.message


def test_a_namespace_that_is_not_served_ends_the_attempt(bench: Bench, start: StartWorker) -> None:
    start()
    record = bench.ended(bench.submit(greet, {"name": "you"}, environment=env(namespace="other")), timeout=90)
    assert cause_of(record) is Cause.CONFIG_ERROR
    assert record.outcome is not None
    assert "DISPATCHER__KUBERNETES__NAMESPACES" in record.outcome.message


def test_what_the_policy_does_not_allow_ends_the_attempt_before_anything_is_created(
    bench: Bench, start: StartWorker, cluster: FakeCluster
) -> None:
    start()
    pod = {"containers": [{"name": "flow"}], "volumes": [{"name": "node", "hostPath": {"path": "/etc"}}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}}
    record = bench.ended(bench.submit(greet, {"name": "you"}, environment=env(job_spec=job)), timeout=90)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.CONFIG_ERROR)
    (sentence,) = [line for line in explain(record, now=0.0, workers=()) if line.startswith("Cause: ")]
    assert sentence == (
        "Cause: config_error; Refused; job_spec: spec.template.spec.volumes[0].hostPath.path: '/etc' isn't allowed: "
        "DISPATCHER__KUBERNETES__ALLOWED_HOST_PATHS allows none."
    )
    assert cluster.count("POST", "jobs") == 0


class Unchecked(KubernetesJobEnvironment):
    """Environment of a submitter that checks nothing: a null among the containers of its Job."""

    def to_json(self) -> dict[str, Any]:
        pod = {"containers": [{"name": "flow"}, None]}
        job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}}
        return {**super().to_json(), "type": "KubernetesJobEnvironment", "job_spec": job}


def test_a_job_that_nobody_checked_ends_its_attempt_alone(bench: Bench, start: StartWorker) -> None:
    worker = start()
    processes = worker.children
    record = bench.ended(bench.submit(greet, {"name": "you"}, environment=Unchecked(image="flows:1")), timeout=90)
    assert record.outcome is not None
    assert (record.attempt, record.outcome.cause) == (1, Cause.CONFIG_ERROR)
    assert "spec.template.spec.containers[1]: must not be null" in record.outcome.message
    after = bench.ended(bench.submit(greet, {"name": "you"}, environment=env()), timeout=90)
    assert after.state is State.SUCCEEDED
    assert worker.children == processes, "no process had to end"


@pytest.mark.parametrize("keys", [{"elsewhere": "a secret of somebody else"}, {"k1": "a secret that was made up"}])
def test_a_run_whose_signature_the_worker_cannot_check_is_refused_at_once(
    keys: dict[str, str], bench: Bench, start: StartWorker, cluster: FakeCluster
) -> None:
    """Nothing of its Job is created, though init containers of it would need no signature."""
    start()
    bench.keys = KeyRing(keys)
    record = bench.ended(bench.submit(greet, {"name": "you"}, environment=env()), timeout=30)
    assert record.outcome is not None
    assert (record.state, record.outcome.reason) == (State.CRASHED, "SealBroken")
    remedy = "DISPATCHER__SIGNING_KEYS" if "elsewhere" in keys else "isn't signed with our key"
    assert remedy in record.outcome.message
    assert bench.records.rejections.tallies()[Rejected.RUN].count == 1
    assert cluster.count("POST", "jobs") == 0


@pytest.mark.row(24)
def test_a_watch_that_was_forgotten_loses_nothing(
    bench: Bench, start: StartWorker, cluster: FakeCluster, tmp_path: Path
) -> None:
    run_id, pid = begun(bench, start, tmp_path / "begun", cluster)
    cluster.forget()
    os.killpg(pod_of(cluster, run_id)["status"]["pid"], signal.SIGKILL)
    record = bench.ended(run_id, timeout=90)
    assert cause_of(record) is Cause.KILLED
    assert pid
    gone(bench, run_id, cluster)


def test_a_suspended_job_waits_and_one_that_is_suspended_again_is_preempted(
    bench: Bench, start: StartWorker, cluster: FakeCluster, tmp_path: Path
) -> None:
    run_id, _ = begun(bench, start, tmp_path / "begun", cluster)
    cluster.change("jobs", object_name(run_id, 1), spec={"suspend": True})
    record = bench.ended(run_id, timeout=90)
    assert (record.state, cause_of(record)) == (State.CRASHED, Cause.PREEMPTED)
    gone(bench, run_id, cluster)
