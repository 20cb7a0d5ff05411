"""What is seen of runs by list-and-watch (kubernetes.md §1, §4), also where a fault proxy stands before it."""

from __future__ import annotations

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


def test_a_run_is_seen_from_its_creation_to_its_end(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    assert replace(poll(backend, handle), times={}) == Observation(phase=Phase.WAITING)
    pod = cluster.add_pod(cluster.get("jobs", NAME))
    cluster.change("pods", pod["metadata"]["name"], status=running())
    until(backend, handle, Phase.RUNNING)
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    status = {"phase": "Failed", "containerStatuses": [{"name": "flow", "state": {"terminated": ended}}]}
    cluster.change("pods", pod["metadata"]["name"], status=status)
    seen = until(backend, handle, Phase.ENDED, Cause.OOM_KILLED)
    assert seen.exit_code == 137
    cluster.delete("pods", pod["metadata"]["name"])  # the controller deletes it; its last state is known
    assert poll(backend, handle) == seen


def test_a_change_is_told_with_its_key_and_run(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    told: list[tuple[str | None, str]] = []
    backend.watch(lambda *change: told.append(change), "inst")
    eventually(lambda: told.count((None, "")) >= 3, "the lists")
    told.clear()
    pod = cluster.add_pod(cluster.get("jobs", NAME))
    cluster.change("pods", pod["metadata"]["name"], status=running())
    eventually(lambda: told, "a change")
    assert set(told) == {(backend.key(handle), RUN_ID)}


def test_a_container_that_is_being_ended_says_why(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster
) -> None:
    """kubernetes.md §3: the supervisor may know better than the runner, which hears SIGTERM alone."""
    pod = cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    cluster.change("pods", pod["metadata"]["name"], status={**running(), "conditions": [disrupted]})
    seen = until(backend, handle, Phase.RUNNING, Cause.EVICTED)
    assert (seen.reason, seen.message) == ("EvictionByEvictionAPI", "drained")


def test_all_that_is_ours_is_listed(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    """Issue 5, the orphan sweep: objects with our instance id alone, with whose they are."""
    backend.submit(backend.prepare(attempt(name="flow-x", run_id="runx", instance="another")), SECRETS)
    (found,) = backend.orphans("inst")
    assert (found.run_id, found.attempt) == (attempt().run_id, attempt().number)
    assert found.age >= 0
    assert {**found.handle, "container": ""} == {**handle, "container": ""}
    cluster.change("jobs", NAME, spec={"suspend": True})
    assert backend.orphans("inst") == [], "a quota queue may hold it as long as it likes"


def test_what_a_watch_has_seen_needs_no_list(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    """Thousands of Jobs would be listed by each worker twice a minute."""
    backend.submit(backend.prepare(attempt(name="flow-x", run_id="runx", instance="another")), SECRETS)
    (listed,) = backend.orphans("inst")
    backend.watch(lambda key, run_id: None, "inst")
    until(backend, handle, Phase.WAITING)
    lists = cluster.lists("jobs")
    (found,) = backend.orphans("inst")
    assert replace(found, age=listed.age) == listed
    cluster.change("jobs", NAME, spec={"suspend": True, "template": cluster.get("jobs", NAME)["spec"]["template"]})
    eventually(lambda: not backend.orphans("inst"), "the suspended Job to be left alone")
    cluster.delete("jobs", NAME)
    eventually(lambda: poll(backend, handle).phase is Phase.GONE, "the end")
    assert backend.orphans("inst") == []
    assert cluster.lists("jobs") == lists == 2, "one before there was a watch, and the watch's own"


def test_looking_costs_no_request(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    eventually(lambda: sum("watch" in one.query for one in cluster.requests) == 3, "three watches")
    before = len(cluster.requests)
    for _ in range(100):
        assert poll(backend, handle).phase is Phase.RUNNING
    assert len(cluster.requests) == before


def test_there_are_three_watches_for_a_namespace(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    others = [backend.submit(backend.prepare(attempt(name=f"flow-{n}", run_id=f"run{n}")), SECRETS) for n in range(5)]
    poll(backend, handle)
    assert [seen.phase for seen in backend.poll([handle, *others])] == [Phase.WAITING] * 6
    eventually(lambda: sum("watch" in one.query for one in cluster.requests) == 3, "three watches")
    asked = {one.path.rpartition("/")[2]: one.query for one in cluster.requests if "watch" in one.query}
    assert asked["jobs"]["labelSelector"] == asked["pods"]["labelSelector"] == "instance=inst"
    assert "reason!=Scheduled" in asked["events"]["fieldSelector"]
    assert all(
        query["allowWatchBookmarks"] == "1" or query["allowWatchBookmarks"] == "true" for query in asked.values()
    )


def test_answers_come_in_the_order_asked(backend: KubernetesBackend, cluster: FakeCluster) -> None:
    handles = [backend.submit(backend.prepare(attempt(name=f"flow-{n}", run_id=f"run{n}")), SECRETS) for n in range(4)]
    cluster.add_pod(cluster.get("jobs", "flow-2"), **running())
    until(backend, handles[2], Phase.RUNNING)
    assert [seen.phase for seen in backend.poll(handles)] == [
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
def test_a_watch_that_breaks_off_goes_on_where_it_was(
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
def test_a_watch_that_stays_silent_is_opened_anew(tmp_path: Path, proxy: FaultProxy, cluster: FakeCluster) -> None:
    backend = KubernetesBackend(settings(tmp_path, proxy.port, silence=0.5))
    proxy.inject("stall", "GET", "/pods?watch=1")
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    poll(backend, handle)
    eventually(lambda: proxy.triggered, "the fault")
    cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    assert backend._watches.get("default", "inst").health["pods"].lists == 1
    backend.close()


@pytest.mark.row(24)
def test_410_is_a_new_list(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    pod = cluster.add_pod(cluster.get("jobs", NAME), **running())
    until(backend, handle, Phase.RUNNING)
    watching = backend._watches.get("default", "inst")
    cluster.forget()
    with cluster.changed:
        del cluster.objects["pods", "default", pod["metadata"]["name"]]  # its DELETED event is lost
    eventually(lambda: watching.health["pods"].lists == 2, "a second list")
    seen = poll(backend, handle)
    assert (seen.phase, seen.cause, seen.reason) == (Phase.GONE, Cause.KILLED, "deleted")


@pytest.mark.row(24)
def test_what_a_watch_never_tells_is_seen_in_the_next_list(
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


def test_complete_lists_come_now_and_then(tmp_path: Path, proxy: FaultProxy, cluster: FakeCluster) -> None:
    cluster.bookmarks = 0.05
    backend = KubernetesBackend(settings(tmp_path, proxy.port, relist=0.2))
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    poll(backend, handle)
    health = backend._watches.get("default", "inst").health["jobs"]
    eventually(lambda: health.lists >= 3, "three lists")
    assert poll(backend, handle).phase is Phase.WAITING
    backend.close()


@pytest.mark.row(25)
def test_a_server_out_of_sight_is_no_reason_to_end_anything(
    tmp_path: Path, serving: FakeApiServer, cluster: FakeCluster
) -> None:
    backend = KubernetesBackend(settings(tmp_path, serving.port, silence=0.3, request_timeout=3.0))
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    until(backend, handle, Phase.WAITING)
    cluster.tokens = set()
    cluster.forget()  # watches end, and come back in vain
    wait_until(lambda: "401" in until(backend, handle, Phase.UNKNOWN).message, "the server's refusal", timeout=30)
    cluster.tokens = {"token-1"}
    until(backend, handle, Phase.WAITING)
    backend.close()


def test_a_job_that_went_while_nobody_looked_is_asked_for_by_name(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.kubernetes.observer.LOOKUP_AFTER", 0.0)
    cluster.delete("jobs", NAME)
    told: list[str | None] = []
    backend.watch(lambda key, run_id: told.append(key), "inst")
    assert poll(backend, handle).phase is Phase.WAITING
    eventually(lambda: backend.key(handle) in told, "word of an answer")
    seen = poll(backend, handle)
    assert (seen.phase, seen.cause) == (Phase.GONE, Cause.UNKNOWN)
    assert cluster.count("GET", f"jobs/{NAME}") == 1


def test_a_slow_answer_holds_nobody_up(
    backend: KubernetesBackend,
    handle: Any,
    cluster: FakeCluster,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked for by name is a Job that no watch has shown; all others are seen meanwhile, and nothing is decided."""
    monkeypatch.setattr("backends.kubernetes.observer.LOOKUP_AFTER", 0.0)
    other = backend.submit(backend.prepare(attempt(name="flow-other", run_id="other")), SECRETS)
    cluster.delete("jobs", NAME)
    until(backend, other, Phase.WAITING)
    proxy.inject("silent", "GET", f"/jobs/{NAME}")
    assert poll(backend, handle).phase is Phase.WAITING
    eventually(lambda: proxy.triggered, "the question")
    cluster.add_pod(cluster.get("jobs", "flow-other"), **running())
    until(backend, other, Phase.RUNNING)
    assert poll(backend, handle).phase is Phase.WAITING


def test_watches_begin_before_there_is_anything_to_see(
    backend: KubernetesBackend, cluster: FakeCluster, proxy: FaultProxy
) -> None:
    """No first run waits for them, and no look waits for the first lists: until then nothing was seen."""
    proxy.inject("silent", "GET", "/jobs?")
    backend.watch(lambda key, run_id: None, "inst")
    eventually(lambda: proxy.triggered, "the list that isn't answered")
    handle = backend.submit(backend.prepare(attempt()), SECRETS)
    assert [seen.phase for seen in backend.poll([handle])] == [Phase.UNSEEN]


def test_a_job_that_is_deleted_under_our_eyes(backend: KubernetesBackend, handle: Any, cluster: FakeCluster) -> None:
    poll(backend, handle)
    cluster.delete("jobs", NAME)
    assert until(backend, handle, Phase.GONE, Cause.KILLED).reason == "deleted"


def test_another_clusters_runs_are_not_judged(backend: KubernetesBackend, handle: Any) -> None:
    foreign = {**handle, "cluster": "elsewhere"}
    assert poll(backend, foreign).phase is Phase.UNKNOWN
    with pytest.raises(Transient, match="it is on cluster 'elsewhere', and this worker serves 'it'"):
        backend.cancel(foreign, None)


@pytest.mark.parametrize("run_id", ["r1\x1b[2J", "../r1", "r1:events", "", "é"])
def test_an_object_of_what_is_no_run_is_nobodys(
    backend: KubernetesBackend, handle: Any, cluster: FakeCluster, run_id: str
) -> None:
    told: list[tuple[str | None, str]] = []
    backend.watch(lambda *change: told.append(change), "inst")
    eventually(lambda: told.count((None, "")) >= 3, "the lists")
    told.clear()
    metadata = cluster.get("jobs", NAME)["metadata"]
    cluster.change("jobs", NAME, metadata={**metadata, "annotations": {**metadata["annotations"], RUN: run_id}})
    eventually(lambda: told, "a change")
    assert set(told) == {(backend.key(handle), "")}
    assert backend.orphans("inst") == []
