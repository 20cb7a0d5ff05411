"""Observation of runs by list and watch, also through a fault proxy."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.base import Observation, Phase
from backends.kubernetes.backend import KubernetesBackend
from backends.kubernetes.manifest import RUN
from dispatcher import Cause
from dispatcher.errors import Transient
from tests.kubernetes_api import FakeApiServer, FakeCluster
from tests.kubernetes_proxy import FaultProxy
from tests.unit.kubernetes.backends import NAME, SECRETS, eventually, poll, running, settings, until
from tests.unit.kubernetes.jobs import RUN_ID, attempt
from tests.waiting import wait_until


def test_a_run_is_observed_from_its_creation_to_its_end(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    assert replace(poll(backend, handle), times={}) == Observation(phase=Phase.WAITING)
    pod = cluster.add_pod(cluster.get("jobs", NAME))
    cluster.change("pods", pod["metadata"]["name"], status=running())
    until(backend, handle, Phase.RUNNING)
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    status = {"phase": "Failed", "containerStatuses": [{"name": "flow", "state": {"terminated": ended}}]}
    cluster.change("pods", pod["metadata"]["name"], status=status)
    observation = until(backend, handle, Phase.ENDED, Cause.OOM_KILLED)
    assert observation.exit_code == 137
    cluster.delete("pods", pod["metadata"]["name"])  # the controller deletes it; its last state is known
    assert poll(backend, handle) == observation


def test_a_change_is_reported_with_its_key_and_run(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    changes: list[tuple[str | None, str]] = []
    backend.watch(lambda *change: changes.append(change), "inst")
    eventually(lambda: changes.count((None, "")) >= 3, "the lists")
    changes.clear()
    pod = cluster.add_pod(cluster.get("jobs", NAME))
    cluster.change("pods", pod["metadata"]["name"], status=running())
    eventually(lambda: changes, "a change")
    assert set(changes) == {(backend.key(handle), RUN_ID)}


def test_a_container_that_is_being_ended_has_a_cause(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    """The supervisor may know the cause; the runner only receives SIGTERM."""
    pod = cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    cluster.change("pods", pod["metadata"]["name"], status={**running(), "conditions": [disrupted]})
    observation = until(backend, handle, Phase.RUNNING, Cause.EVICTED)
    assert (observation.reason, observation.message) == ("EvictionByEvictionAPI", "drained")


def test_all_jobs_of_the_installation_are_listed(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    """Only objects of this installation are listed, each with its run and attempt."""
    backend.submit(backend.prepare(attempt(name="flow-x", run_id="runx", instance="another")), SECRETS)
    (orphan,) = backend.orphans("inst")
    assert (orphan.run_id, orphan.attempt) == (attempt().run_id, attempt().number)
    assert orphan.age >= 0
    assert {**orphan.handle, "container": ""} == {**handle, "container": ""}
    cluster.change("jobs", NAME, spec={"suspend": True})
    assert backend.orphans("inst") == [], "a quota queue may hold it as long as it likes"


def test_orphans_come_from_a_current_watch_without_a_list(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    """Otherwise each worker would list thousands of Jobs twice a minute."""
    backend.submit(backend.prepare(attempt(name="flow-x", run_id="runx", instance="another")), SECRETS)
    (listed,) = backend.orphans("inst")
    backend.watch(lambda key, run_id: None, "inst")
    until(backend, handle, Phase.WAITING)
    lists = cluster.lists("jobs")
    (orphan,) = backend.orphans("inst")
    assert replace(orphan, age=listed.age) == listed
    cluster.change("jobs", NAME, spec={"suspend": True, "template": cluster.get("jobs", NAME)["spec"]["template"]})
    eventually(lambda: not backend.orphans("inst"), "the suspended Job to be left alone")
    cluster.delete("jobs", NAME)
    eventually(lambda: poll(backend, handle).phase is Phase.GONE, "the end")
    assert backend.orphans("inst") == []
    assert cluster.lists("jobs") == lists == 2, "one before there was a watch, and the watch's own"


def test_polling_costs_no_request(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    eventually(lambda: sum("watch" in request.query for request in cluster.requests) == 3, "three watches")
    before = len(cluster.requests)
    for _ in range(100):
        assert poll(backend, handle).phase is Phase.RUNNING
    assert len(cluster.requests) == before


def test_there_are_three_watches_for_a_namespace(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    others = [backend.submit(backend.prepare(attempt(name=f"flow-{n}", run_id=f"run{n}")), SECRETS) for n in range(5)]
    poll(backend, handle)
    assert [observation.phase for observation in backend.poll([handle, *others])] == [Phase.WAITING] * 6
    eventually(lambda: sum("watch" in request.query for request in cluster.requests) == 3, "three watches")
    queries = {
        request.path.rpartition("/")[2]: request.query for request in cluster.requests if "watch" in request.query
    }
    assert (
        queries["jobs"]["labelSelector"] == queries["pods"]["labelSelector"] == "instance=inst,!flow-dispatcher/backend"
    )
    assert "reason!=Scheduled" in queries["events"]["fieldSelector"]
    assert all(
        query["allowWatchBookmarks"] == "1" or query["allowWatchBookmarks"] == "true" for query in queries.values()
    )


def test_observations_come_in_the_order_of_the_handles(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    handles = [backend.submit(backend.prepare(attempt(name=f"flow-{n}", run_id=f"run{n}")), SECRETS) for n in range(4)]
    cluster.add_pod(cluster.get("jobs", "flow-2"), **running())
    until(backend, handles[2], Phase.RUNNING)
    assert [observation.phase for observation in backend.poll(handles)] == [
        Phase.WAITING,
        Phase.WAITING,
        Phase.RUNNING,
        Phase.WAITING,
    ]


def test_an_event_gives_the_text(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    job = cluster.get("jobs", NAME)
    about = {"kind": "Job", "name": NAME, "uid": job["metadata"]["uid"]}
    event = {"metadata": {"name": "e1"}, "type": "Warning", "reason": "FailedCreate", "involvedObject": about}
    cluster.create("events", {**event, "message": "exceeded quota: pods"})
    poll(backend, handle)
    cache = backend._watches.get("default", "inst").cache
    eventually(lambda: cache.events([job["metadata"]["uid"]]), "the event")
    assert cache.events([job["metadata"]["uid"]])[0]["message"] == "exceeded quota: pods"


@pytest.mark.row(24)
@pytest.mark.parametrize("fault", ["truncate", "cut", "garbage"])
def test_a_watch_that_breaks_off_continues_from_its_version(
    fault: str, backend: KubernetesBackend, handle: Any, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    proxy.inject(fault, "GET", "/pods?watch=1")
    poll(backend, handle)
    eventually(lambda: proxy.triggered, "the fault")
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    health = backend._watches.get("default", "inst").health["pods"]
    assert (health.lists, health.watches >= 2) == (1, True)


@pytest.mark.row(24)
def test_a_silent_watch_is_reopened(tmp_path: Path, proxy: FaultProxy, cluster: FakeCluster) -> None:
    backend = KubernetesBackend(settings(tmp_path, proxy.port, silence=0.5))
    proxy.inject("stall", "GET", "/pods?watch=1")
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    poll(backend, handle)
    eventually(lambda: proxy.triggered, "the fault")
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    assert backend._watches.get("default", "inst").health["pods"].lists == 1
    backend.close()


def test_a_quiet_watch_is_reopened_without_a_warning(
    tmp_path: Path, proxy: FaultProxy, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """An API server sends no bookmarks of events, which it doesn't cache, and ends a watch after the time asked for."""
    cluster.bookmarks = 0
    backend = KubernetesBackend(settings(tmp_path, proxy.port, silence=2.0))
    with caplog.at_level(logging.INFO):
        backend.watch(lambda key, run_id: None, "inst")
        health = backend._watches.get("default", "inst").health
        eventually(lambda: all(health[kind].watches >= 3 for kind in health), "watches that were reopened")
    assert [health[kind].lists for kind in health] == [1, 1, 1]
    records = [record for record in caplog.records if record.name.startswith("backends")]
    assert [record.getMessage() for record in records if "is on the cluster with" not in record.getMessage()] == []
    backend.close()


@pytest.mark.row(24)
def test_410_leads_to_a_new_list(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    pod = cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    watch = backend._watches.get("default", "inst")
    cluster.forget()
    with cluster.changed:
        del cluster.objects["pods", "default", pod["metadata"]["name"]]  # its DELETED event is lost
    eventually(lambda: watch.health["pods"].lists == 2, "a second list")
    assert until(backend, handle, Phase.GONE, Cause.KILLED).reason == "deleted"
    assert cluster.count("GET", f"pods/{pod['metadata']['name']}") == 1, "what a list lacks is looked up by name"
    assert "broke off" not in caplog.text, "a server compacts its history every few minutes"


@pytest.mark.row(24)
def test_an_event_that_a_watch_misses_is_found_by_the_next_list(
    tmp_path: Path, proxy: FaultProxy, cluster: FakeCluster
) -> None:
    backend = KubernetesBackend(settings(tmp_path, proxy.port, relist=1.0))
    proxy.inject("bookmarks", "GET", "/pods?watch=1", times=1000)
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    poll(backend, handle)
    eventually(lambda: proxy.triggered, "the fault")
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    backend.close()


def test_complete_lists_are_repeated(tmp_path: Path, proxy: FaultProxy, cluster: FakeCluster) -> None:
    cluster.bookmarks = 0.05
    backend = KubernetesBackend(settings(tmp_path, proxy.port, relist=0.2))
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    poll(backend, handle)
    health = backend._watches.get("default", "inst").health["jobs"]
    eventually(lambda: health.lists >= 3, "three lists")
    assert poll(backend, handle).phase is Phase.WAITING
    backend.close()


@pytest.mark.row(25)
def test_an_unreachable_server_ends_nothing(tmp_path: Path, serving: FakeApiServer, cluster: FakeCluster) -> None:
    backend = KubernetesBackend(settings(tmp_path, serving.port, silence=0.3, request_timeout=3.0))
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    until(backend, handle, Phase.WAITING)
    cluster.tokens = set()
    cluster.forget()  # watches end, and come back in vain
    wait_until(lambda: "401" in until(backend, handle, Phase.UNKNOWN).message, "the server's refusal", timeout=30)
    cluster.tokens = {"token-1"}
    until(backend, handle, Phase.WAITING)
    backend.close()


def test_a_job_deleted_while_unwatched_is_looked_up_by_name(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.kubernetes.observer.LOOKUP_AFTER", 0.0)
    cluster.delete("jobs", NAME)
    changes: list[str | None] = []
    backend.watch(lambda key, run_id: changes.append(key), "inst")
    assert poll(backend, handle).phase is Phase.WAITING
    eventually(lambda: backend.key(handle) in changes, "the lookup's result")
    observation = poll(backend, handle)
    assert (observation.phase, observation.cause) == (Phase.GONE, Cause.UNKNOWN)
    assert cluster.count("GET", f"jobs/{NAME}") == 1


def test_a_slow_lookup_delays_no_other_observation(
    backend: KubernetesBackend,
    handle: Any,
    cluster: FakeCluster,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Job that no watch has shown is looked up by name; meanwhile all others are observed, and nothing is decided."""
    monkeypatch.setattr("backends.kubernetes.observer.LOOKUP_AFTER", 0.0)
    other = backend.submit(backend.prepare(attempt(name="flow-other", run_id="other")), SECRETS)
    cluster.delete("jobs", NAME)
    until(backend, other, Phase.WAITING)
    proxy.inject("silent", "GET", f"/jobs/{NAME}")
    assert poll(backend, handle).phase is Phase.WAITING
    eventually(lambda: proxy.triggered, "the lookup")
    cluster.add_pod(cluster.get("jobs", "flow-other"), **running())
    until(backend, other, Phase.RUNNING)
    assert poll(backend, handle).phase is Phase.WAITING


def test_watches_start_without_waiting_for_lists(
    backend: KubernetesBackend, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    """No run waits for the watches, and no poll waits for the first lists: until then nothing was observed."""
    proxy.inject("silent", "GET", "/jobs?")
    backend.watch(lambda key, run_id: None, "inst")
    eventually(lambda: proxy.triggered, "the list without a response")
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    assert [observation.phase for observation in backend.poll([handle])] == [Phase.UNSEEN]


def test_a_job_deleted_while_watched_is_gone(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    poll(backend, handle)
    cluster.delete("jobs", NAME)
    assert until(backend, handle, Phase.GONE, Cause.KILLED).reason == "deleted"


def test_runs_of_another_cluster_are_out_of_scope(backend: KubernetesBackend, handle: Any) -> None:
    foreign = {**handle, "cluster": "elsewhere"}
    assert poll(backend, foreign).phase is Phase.UNKNOWN
    with pytest.raises(Transient, match="it is on cluster 'elsewhere', and this worker serves 'it'"):
        backend.cancel(foreign, None)


@pytest.mark.parametrize("run_id", ["r1\x1b[2J", "../r1", "r1:events", "", "é"])
def test_an_object_with_an_invalid_run_id_has_no_run(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster, run_id: str
) -> None:
    changes: list[tuple[str | None, str]] = []
    backend.watch(lambda *change: changes.append(change), "inst")
    eventually(lambda: changes.count((None, "")) >= 3, "the lists")
    changes.clear()
    metadata = cluster.get("jobs", NAME)["metadata"]
    cluster.change("jobs", NAME, metadata={**metadata, "annotations": {**metadata["annotations"], RUN: run_id}})
    eventually(lambda: changes, "a change")
    assert set(changes) == {(backend.key(handle), "")}
    assert backend.orphans("inst") == []
