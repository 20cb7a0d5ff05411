"""Interference of others with a run's objects: a Job deleted without its pod, labels taken off, finalizers, copies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backends.base import Phase
from backends.kubernetes.backend import KubernetesBackend
from dispatcher import Cause
from dispatcher.errors import Permanent, Transient
from dispatcher.inspection.orphans import OrphanCleanup
from dispatcher.records.memory import open_memory
from dispatcher.runs.attempt import object_name
from dispatcher.runs.change import Change
from dispatcher.runs.states import State
from tests.kubernetes_api import FakeApiServer, FakeCluster, Json, StatusError
from tests.kubernetes_proxy import FaultProxy
from tests.unit.kubernetes.backends import SECRETS, eventually, poll, running, settings, until
from tests.unit.kubernetes.jobs import RUN_ID, attempt
from tests.unit.making import make_record

NAME = object_name(RUN_ID, 2)
POD = f"{NAME}-pod"
ENDED = {"phase": "Failed", "containerStatuses": [{"name": "flow", "state": {"terminated": {"exitCode": 3}}}]}
HOLD = "example.com/hold"


@pytest.fixture
def handle(backend: KubernetesBackend) -> Any:
    """Handle of a submitted run, whose objects are named as a worker names them."""
    return backend.submit(backend.prepare(attempt(name=NAME)), SECRETS)


@pytest.fixture
def pod(cluster: FakeCluster, handle: Any) -> Json:
    """Pod of the run, in which its flow runs."""
    return cluster.add_pod(cluster.get("jobs", NAME), POD, **running())


@pytest.fixture
def restarted(proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesBackend]:
    """Backend of a worker that starts later, and has seen nothing."""
    monkeypatch.setattr("backends.kubernetes.observer.LOOKUP_AFTER", 0.0)
    backend = KubernetesBackend(settings(tmp_path, proxy.port))
    yield backend
    backend.close()


def deleted(cluster: FakeCluster, kind: str) -> list[str]:
    """Return the names of the objects of a kind whose deletion was requested."""
    requests = [request for request in cluster.requests if request.method == "DELETE" and f"/{kind}/" in request.path]
    return [request.path.rpartition("/")[2] for request in requests]


def confirm(backend: KubernetesBackend, handle: Any) -> None:
    eventually(lambda: _refusal(backend, handle) == "True", "the confirmation")


def test_a_pod_without_its_job_runs_on(
    backend: KubernetesBackend, restarted: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    """Also for a worker that starts later; its end is observed as any other."""
    until(backend, handle, Phase.RUNNING)
    cluster.orphan("jobs", NAME)
    cache = backend._watches.get("default", "inst").cache
    eventually(lambda: cache.job(handle["uid"])[1] or poll(backend, handle).phase is not Phase.RUNNING, "the Job's end")
    assert until(backend, handle, Phase.RUNNING)
    until(restarted, handle, Phase.RUNNING)
    cluster.change("pods", POD, status=ENDED)
    for each in (backend, restarted):
        assert until(each, handle, Phase.ENDED, Cause.START_FAILED).exit_code == 3


def test_a_change_of_an_orphaned_pod_is_reported(
    restarted: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    cluster.orphan("jobs", NAME)
    changes: list[tuple[str | None, str]] = []
    restarted.watch(lambda *change: changes.append(change), "inst")
    eventually(lambda: changes.count((None, "")) >= 3, "the lists")
    changes.clear()
    cluster.change("pods", POD, status=ENDED)
    eventually(lambda: changes, "a change")
    assert set(changes) == {(handle["uid"], RUN_ID)}


@pytest.mark.parametrize("late", [False, True])
def test_a_cancel_ends_pod_and_secret_without_their_job(
    late: bool, backend: KubernetesBackend, restarted: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    until(backend, handle, Phase.RUNNING)
    cluster.orphan("jobs", NAME)
    worker = restarted if late else backend
    until(worker, handle, Phase.RUNNING)
    cluster.keep_pods = True
    eventually(lambda: backend.cancel(handle, None) or deleted(cluster, "pods"), "the pod's deletion")
    (body,) = [request.body for request in cluster.requests if f"pods/{POD}" in request.path and request.body]
    assert body["preconditions"] == {"uid": pod["metadata"]["uid"]}
    until(worker, handle, Phase.RUNNING, Cause.KILLED)
    assert not worker.cancel(handle, None), "it is still terminating"
    cluster.keep_pods = False
    cluster.delete("pods", POD)
    confirm(worker, handle)
    assert deleted(cluster, "pods") == [POD]
    assert not cluster.objects


def test_a_cancel_without_watches_ends_them_too(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    cluster.orphan("jobs", NAME)
    cluster.keep_pods = True
    assert not backend.cancel(handle, None)
    assert (deleted(cluster, "pods"), deleted(cluster, "secrets")) == ([POD], [NAME])
    cluster.keep_pods = False
    cluster.delete("pods", POD)
    confirm(backend, handle)
    assert not cluster.objects


def test_a_cancel_by_the_request_alone_ends_them_too(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    """Of a run whose handle was never stored."""
    cluster.orphan("jobs", NAME)
    request = backend.prepare(attempt(name=NAME))
    other = cluster.add_pod({"metadata": {"name": NAME, "uid": "u", "namespace": "default"}, "spec": {"template": {
        "metadata": {"labels": {"instance": "another", "attempt": "2"}}}}}, "copy")  # fmt: skip
    eventually(lambda: backend.cancel(None, request), "the confirmation")
    assert list(cluster.objects) == [("pods", "default", other["metadata"]["name"])]


def test_a_job_that_goes_as_usual_costs_no_further_request(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    until(backend, handle, Phase.RUNNING)
    cluster.change("pods", POD, status=ENDED)
    until(backend, handle, Phase.ENDED, Cause.START_FAILED)
    confirm(backend, handle)
    assert (deleted(cluster, "jobs"), deleted(cluster, "pods"), deleted(cluster, "secrets")) == ([NAME], [], [])
    assert not [request for request in cluster.requests if request.method == "GET" and NAME in request.path]


def test_a_missing_right_is_named(backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster) -> None:
    cluster.orphan("jobs", NAME)
    cluster.errors["DELETE", "pods"] = StatusError(403, "Forbidden", 'user cannot delete resource "pods" in API group')
    cluster.denied.add(("pods", "delete"))
    with pytest.raises(Permanent, match="the worker may not delete pods in namespace default"):
        backend.cancel(handle, None)


@pytest.mark.parametrize("kind", ["jobs", "pods"])
def test_a_label_taken_off_ends_nothing(
    kind: str,
    backend: KubernetesBackend,
    handle: Any,
    pod: Json,
    cluster: FakeCluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The object is read by name from then on, which shows its end, and a cancel ends it."""
    monkeypatch.setattr("backends.kubernetes.observer.READ_INTERVAL", 0.05)
    until(backend, handle, Phase.RUNNING)
    name = NAME if kind == "jobs" else POD
    cluster.relabel(kind, name, instance=None)
    with caplog.at_level(logging.WARNING):
        eventually(lambda: poll(backend, handle).phase is Phase.RUNNING and "has lost its label" in caplog.text, "it")
    assert caplog.text.count("has lost its label 'instance'") == 1
    cluster.change("pods", POD, status=ENDED)
    assert until(backend, handle, Phase.ENDED, Cause.START_FAILED).exit_code == 3
    confirm(backend, handle)
    assert not cluster.objects


@pytest.mark.parametrize("kind", ["jobs", "pods"])
def test_a_label_taken_off_before_a_worker_starts(
    kind: str, restarted: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    cluster.relabel("jobs", NAME, instance=None)
    if kind == "pods":
        cluster.relabel("pods", POD, instance=None)
    until(restarted, handle, Phase.RUNNING)
    confirm(restarted, handle)
    assert not cluster.objects


def test_a_pod_that_its_job_let_go_is_still_the_runs(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    """Kubernetes' Job controller lets go of a pod without its label, and starts another."""
    until(backend, handle, Phase.RUNNING)
    taken: dict[str, Any] = {"batch.kubernetes.io/controller-uid": None}
    metadata = cluster.relabel("pods", POD, **taken)["metadata"]
    cluster.change("pods", POD, metadata={**metadata, "ownerReferences": []}, status=ENDED)
    assert until(backend, handle, Phase.ENDED, Cause.START_FAILED).exit_code == 3
    confirm(backend, handle)
    assert deleted(cluster, "pods") == [POD]
    assert not cluster.objects


def test_an_object_that_cannot_be_looked_up_is_unknown(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    until(backend, handle, Phase.RUNNING)
    cluster.errors["GET", "pods"] = StatusError(500, "InternalError", "etcd is away")
    cluster.relabel("pods", POD, instance=None)
    assert "etcd is away" in until(backend, handle, Phase.UNKNOWN).message
    del cluster.errors["GET", "pods"]
    until(backend, handle, Phase.RUNNING)


def test_a_pod_that_vanishes_at_once_is_gone(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    """A forced deletion leaves no sign in its last state."""
    until(backend, handle, Phase.RUNNING)
    cluster.drop("pods", POD)
    assert until(backend, handle, Phase.GONE, Cause.KILLED).reason == "deleted"


def test_a_copy_of_the_pod_is_not_the_runs(
    backend: KubernetesBackend, restarted: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    """Anybody may copy labels: where owner references have shown the pod, they decide, and else its age."""
    until(backend, handle, Phase.RUNNING)
    cluster.orphan("jobs", NAME)
    metadata = {"name": "copy", "creationTimestamp": "2026-01-01T00:01:00Z"}
    metadata |= {part: pod["metadata"][part] for part in ("labels", "annotations")}
    cluster.create("pods", {"metadata": metadata, "spec": {}, "status": running()})
    cluster.change("pods", POD, status=ENDED)
    until(backend, handle, Phase.ENDED, Cause.START_FAILED)
    until(restarted, handle, Phase.ENDED, Cause.START_FAILED)
    confirm(backend, handle)
    assert list(cluster.objects) == [("pods", "default", "copy")]


def test_pods_and_jobs_of_another_installation_are_left_alone(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    cluster.relabel("jobs", NAME, instance="another")
    cluster.relabel("pods", POD, instance="another")
    assert backend.orphans("inst") == []
    assert backend.cancel(handle, None)
    assert {kind for kind, _, _ in cluster.objects} == {"jobs", "pods", "secrets"}


@pytest.mark.parametrize("watched", [False, True])
def test_a_pod_without_its_job_is_listed_and_ended(
    watched: bool, backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    if watched:
        until(backend, handle, Phase.RUNNING)
    cluster.orphan("jobs", NAME)
    (orphan,) = eventually(lambda: backend.orphans("inst"), "the pod")
    assert (orphan.run_id, orphan.attempt, orphan.kept_by) == (RUN_ID, 2, "")
    assert {**orphan.handle, "container": ""} == {**handle, "container": ""}
    confirm(backend, orphan.handle)
    assert not cluster.objects
    eventually(lambda: backend.orphans("inst") == [], "no orphan")


def test_a_forged_pod_costs_nobody_a_secret(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    """Its labels name the Secret of somebody else as its Job."""
    labels = {"instance": "inst", "attempt": "2", "job-name": "database", "batch.kubernetes.io/controller-uid": "u"}
    metadata = {"name": "forged", "labels": labels, "annotations": {"flow-dispatcher/run": RUN_ID}}
    cluster.create("pods", {"metadata": metadata, "spec": {"containers": [{"name": "c"}]}, "status": running()})
    cluster.create("secrets", {"metadata": {"name": "database"}})
    (orphan,) = backend.orphans("inst")
    backend.cancel(orphan.handle, None)
    backend.cancel({**orphan.handle, "name": "database"}, None)
    assert ("secrets", "default", "database") in cluster.objects


def test_a_finalizer_on_the_pod_is_named(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    until(backend, handle, Phase.RUNNING)
    cluster.change("pods", POD, metadata={**cluster.get("pods", POD)["metadata"], "finalizers": [HOLD]})
    message = f"it waits for finalizer {HOLD} on pod default/{POD}, set by others"
    eventually(lambda: _refusal(backend, handle) == message, "the finalizer's name")
    (orphan,) = backend.orphans("inst")
    assert orphan.kept_by == message
    cluster.change("pods", POD, metadata={**cluster.get("pods", POD)["metadata"], "finalizers": []})
    cluster.delete("pods", POD)
    confirm(backend, handle)


def test_a_finalizer_on_the_job_keeps_no_pod(
    backend: KubernetesBackend, handle: Any, pod: Json, cluster: FakeCluster
) -> None:
    """Kubernetes deletes the pods only after their Job; they are deleted by name."""
    until(backend, handle, Phase.RUNNING)
    cluster.change("jobs", NAME, metadata={**cluster.get("jobs", NAME)["metadata"], "finalizers": [HOLD]})
    message = f"it waits for finalizer {HOLD} on Job default/{NAME}, set by others"
    eventually(lambda: _refusal(backend, handle) == message, "the finalizer's name")
    assert deleted(cluster, "pods") == [POD]
    assert ("pods", "default", POD) not in cluster.objects
    assert _refusal(backend, None, backend.prepare(attempt(name=NAME))) == message, "also without a stored handle"
    assert [orphan.kept_by for orphan in backend.orphans("inst")] == [message]


def test_a_job_that_waits_for_what_it_owns_is_freed(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    """Somebody deleted it in the foreground, and something of theirs blocks that. A deletion in the background frees
    it: the finalizer goes."""
    until(backend, handle, Phase.WAITING)
    metadata = cluster.get("jobs", NAME)["metadata"]
    blocked = {**metadata, "finalizers": ["foregroundDeletion"], "deletionTimestamp": "2026-01-01T01:00:00Z"}
    cluster.change("jobs", NAME, metadata=blocked)
    cache = backend._watches.get("default", "inst").cache
    eventually(lambda: (cache.job(handle["uid"])[0] or {})["metadata"].get("finalizers"), "the finalizer")
    assert not backend.cancel(handle, None)
    assert deleted(cluster, "jobs") == [NAME]


def test_gc_names_what_keeps_it(serving: FakeApiServer, cluster: FakeCluster, tmp_path: Path) -> None:
    """An orphan, which no worker deletes any more."""
    records = open_memory()
    options = settings(tmp_path, serving.port)
    with closing(OrphanCleanup(records, options, ["kubernetes"])) as sweep:
        with closing(KubernetesBackend(options)) as backend:
            backend.submit(backend.prepare(attempt(name=NAME, instance=records.instance)), SECRETS)
        cluster.add_pod(cluster.get("jobs", NAME), POD, **running())
        cluster.orphan("jobs", NAME)
        cluster.change("pods", POD, metadata={**cluster.get("pods", POD)["metadata"], "finalizers": [HOLD]})
        (orphan,) = sweep.orphans()
        assert (orphan.name, orphan.why) == (f"default/{NAME}", "no such run")
        reason = f"it waits for finalizer {HOLD} on pod default/{POD}, set by others"
        assert list(sweep.end([orphan], within=0.0)) == ["asked to go, not confirmed yet"]
        assert [again.why for again in sweep.orphans()] == [f"no such run; {reason}"]
        assert list(sweep.end([orphan], within=0.0)) == [reason]


def test_gc_names_who_keeps_what_workers_have_deleted(
    serving: FakeApiServer, cluster: FakeCluster, tmp_path: Path
) -> None:
    """The teardown of an ended attempt is pending for as long as somebody's finalizer is there."""
    records = open_memory()
    options = settings(tmp_path, serving.port)
    attempt_1 = partial(attempt, name=object_name(RUN_ID, 1), number=1, instance=records.instance)
    with closing(KubernetesBackend(options)) as backend:
        request = backend.prepare(attempt_1())
        handle = backend.submit(request, SECRETS)
        job = cluster.get("jobs", handle["name"])
        cluster.change("jobs", handle["name"], metadata={**job["metadata"], "finalizers": [HOLD]})
        leftover = {"attempt": 1, "request": {"shard": "kubernetes@it/1", "body": request}, "handle": handle}
        records.runs.create([make_record(RUN_ID)])
        ended = {"state": State.CRASHED, "ended_at": 0.0, "leftovers": (leftover,)}
        records.runs.update(RUN_ID, lambda record, now: Change(before=record, after=record.but(**ended)))
        with closing(OrphanCleanup(records, options, ["kubernetes"])) as sweep:
            assert sweep.orphans() == [], "workers are about to delete it"
            _refusal(backend, handle)
            (orphan,) = sweep.orphans()
            reason = f"it waits for finalizer {HOLD} on Job default/{handle['name']}, set by others"
            assert orphan.why == f"the run is CRASHED, attempt 1; {reason}"
            assert list(sweep.end([orphan], within=0.0)) == [reason]


def _refusal(backend: KubernetesBackend, handle: Any, request: Any = None) -> str:
    try:
        return str(backend.cancel(handle, request))
    except Transient as error:
        return str(error)
