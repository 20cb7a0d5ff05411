"""Places that live workers serve under one name, for ``status``, ``doctor`` and ``explain``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher.inspection.as_json import worker_json
from dispatcher.inspection.explain import command_for, explain
from dispatcher.inspection.finding import Level
from dispatcher.inspection.places import examine_places, place_rows, whereabouts
from dispatcher.inspection.queues import waits
from dispatcher.inspection.unwatched import examine_watching
from dispatcher.inspection.waiting import why_waiting
from dispatcher.records.memory import open_memory
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import transitions as t
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.states import State
from tests.unit.making import make_record, queued

A, B = {"kube-system": "uid-a", "ca/flows": "ca-a"}, {"kube-system": "uid-b", "ca/flows": "ca-b"}
ONLY_CA = {"ca/flows": "ca-a"}


def worker(name: str, identity: Any = None, *, family: str = "kubernetes") -> WorkerInfo:
    data: dict[str, Any] = {"supervises": [family]} | ({} if identity is None else {"places": {family: identity}})
    return WorkerInfo(
        id=name,
        host="mars",
        pid=7,
        offer=Offer(backends=frozenset({"kubernetes"})),
        concurrency=2,
        started_at=0.0,
        data=data,
    )


def after(change: Change | None) -> Record:
    assert change is not None
    return change.after


def pending(identity: Mapping[str, str] | None, *, created: bool = True, family: str = "kubernetes") -> Record:
    """Return a run whose infrastructure was created, or only requested, in a place with that identity."""
    stored = {} if identity is None else {"identity": identity}
    claimed = after(t.claim(queued(), 1, owner="w"))
    request = {"shard": f"{family}/1", "epoch": 1, "body": stored}
    requested = after(t.intend(claimed, 1, epoch=1, request=request))
    handle = {"shard": f"{family}/1", **stored}
    return after(t.created(requested, 1, epoch=1, handle=handle, owner=f"{family}/1")) if created else requested


def test_one_cluster() -> None:
    workers = [worker("w1", ONLY_CA), worker("w2", A), worker("w3"), worker("w4", A, family="kubernetes@eu")]
    findings = list(examine_places(workers))
    assert [(finding.level, finding.text) for finding in findings[:2]] == [
        (Level.OK, "kubernetes is the one with kube-system uid-a"),
        (Level.OK, "kubernetes@eu is the one with kube-system uid-a"),
    ]
    (several,) = findings[2:]
    assert several.level is Level.WARNING
    assert (
        "w2, w1 serve the one with kube-system uid-a as kubernetes, and w4 serves it as kubernetes@eu" in several.text
    )
    assert place_rows(workers) == [
        ("kubernetes", "kube-system uid-a", "w2, w1"),
        ("kubernetes@eu", "kube-system uid-a", "w4"),
    ]
    assert worker_json(workers[1])["places"] == {"kubernetes": A}
    assert worker_json(workers[2])["places"] == {"kubernetes": {}}


@pytest.mark.parametrize("identity", [None, {}, 3, {"a": 1}])
def test_no_identity_says_nothing(identity: Any) -> None:
    assert list(examine_places([worker("w1", identity)])) == []
    assert place_rows([worker("w1", identity)]) == []


def test_two_clusters_under_one_name() -> None:
    (finding,) = examine_places([worker("w1", A), worker("w2", B), worker("w3", ONLY_CA)])
    assert finding.level is Level.PROBLEM
    assert "w1, w3 serve the one with kube-system uid-a; w2 serves the one with kube-system uid-b" in finding.text
    assert "a name of its own" in finding.remedy


@pytest.mark.parametrize("created", [True, False])
def test_a_run_on_a_cluster_that_no_worker_serves(created: bool) -> None:
    lines = explain(pending(A, created=created), now=10, workers=[worker("w1", B)])
    assert "Its infrastructure is on the cluster with kube-system uid-a." in lines
    assert "Worker w1 serves, also as kubernetes, the one with kube-system uid-b." in lines
    assert "Remedy: start a worker for the former; until then nothing is concluded about the run." in lines


def test_a_run_on_one_of_two_clusters() -> None:
    lines = whereabouts(pending(A), [worker("w1", B), worker("w2", A)])
    assert lines[-1] == "Remedy: give each cluster a name of its own in the settings of its workers."


def test_a_run_whose_cluster_is_served_under_another_name_only() -> None:
    lines = whereabouts(pending(A), [worker("w1", A, family="kubernetes@eu"), worker("w2", A, family="other")])
    assert lines[0].startswith("Worker w1 serves its cluster as kubernetes@eu; the run was created for kubernetes, and")
    assert lines[1].startswith("Remedy: start a worker without DISPATCHER__KUBERNETES__CLUSTERS,")
    assert whereabouts(pending(A), [worker("w1", B, family="kubernetes@eu")]) == []
    lines = whereabouts(pending(A, family="kubernetes@a b"), [worker("w1", A)])
    assert "start a worker with DISPATCHER__KUBERNETES__CLUSTER='a b', and give each cluster one name" in lines[1]


def test_a_run_that_nobody_watches_names_the_worker_that_it_needs() -> None:
    record = pending(None, family="kubernetes@eu")
    command = "DISPATCHER__KUBERNETES__CLUSTER=eu dispatcher worker --backend kubernetes"
    routed = record.but(state=State.RUNNING)
    assert command_for(Route("kubernetes"), record.owner) == command
    assert (
        "start one, as `DISPATCHER__KUBERNETES__CLUSTER=eu dispatcher worker" in explain(routed, now=10, workers=[])[0]
    )
    assert why_waiting(routed, now=10, holders={}) == "no live worker watches it: none holds shard kubernetes@eu/1"
    assert why_waiting(routed, now=10, holders={"kubernetes@eu/1": "w1"}) == ""


def test_the_doctor_counts_runs_that_nobody_watches() -> None:
    records = open_memory()
    records.runs.create([make_record("run1"), make_record("run2")])
    lost = pending(None, family="kubernetes@eu")
    changes = {"state": State.RUNNING, "owner": lost.owner, "request": lost.request, "started_at": 1.0}
    records.runs.update("run1", lambda record, now: Change(before=record, after=record.but(**changes)))
    (finding,) = examine_watching(records, [])
    assert (finding.level, finding.text) == (
        Level.WARNING,
        "1 run of kubernetes@eu is watched by no live worker, such as run1",
    )
    assert "DISPATCHER__KUBERNETES__CLUSTER=eu dispatcher worker" in finding.remedy
    (shown,) = waits(records, [records.runs.get("run1")[0]], 10.0).values()
    assert shown.startswith("no live worker watches it")
    records.workers.announce(worker("w1"))
    records.leases.acquire(lost.owner, "w1", expected=None)
    assert list(examine_watching(records, records.workers.live())) == []
    assert list(waits(records, [records.runs.get("run1")[0]], 10.0).values()) == [""]


def test_a_worker_that_cannot_tell() -> None:
    lines = whereabouts(pending(A), [worker("w1")])
    assert "Worker w1 can't tell yet which one it serves; `dispatcher doctor` says if it may read it." in lines


@pytest.mark.parametrize(
    ("identity", "workers"),
    [(A, [worker("w1", A), worker("w2")]), (A, []), (None, [worker("w1", B)]), (A, [worker("w1", B, family="other")])],
)
def test_nothing_to_say(identity: Any, workers: list[WorkerInfo]) -> None:
    assert whereabouts(pending(identity), workers) == []
