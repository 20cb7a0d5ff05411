"""Places that live workers serve under one name, for ``status``, ``doctor`` and ``explain``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher.inspection.as_json import worker_json
from dispatcher.inspection.explain import explain
from dispatcher.inspection.finding import Level
from dispatcher.inspection.places import examine_places, place_rows, whereabouts
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import transitions as t
from dispatcher.runs.change import Change
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Offer
from tests.unit.making import queued

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


def pending(identity: Mapping[str, str] | None, *, created: bool = True) -> Record:
    """Return a run whose infrastructure was created, or only requested, in a place with that identity."""
    stored = {} if identity is None else {"identity": identity}
    claimed = after(t.claim(queued(), 1, owner="w"))
    request = {"shard": "kubernetes/1", "epoch": 1, "body": stored}
    requested = after(t.intend(claimed, 1, epoch=1, request=request))
    handle = {"shard": "kubernetes/1", **stored}
    return after(t.created(requested, 1, epoch=1, handle=handle, owner="kubernetes/1")) if created else requested


def test_one_cluster() -> None:
    workers = [worker("w1", ONLY_CA), worker("w2", A), worker("w3"), worker("w4", A, family="kubernetes@eu")]
    findings = list(examine_places(workers))
    assert [(finding.level, finding.text) for finding in findings] == [
        (Level.OK, "kubernetes is the one with kube-system uid-a"),
        (Level.OK, "kubernetes@eu is the one with kube-system uid-a"),
    ]
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


def test_a_worker_that_cannot_tell() -> None:
    lines = whereabouts(pending(A), [worker("w1")])
    assert "Worker w1 can't tell yet which one it serves; `dispatcher doctor` says if it may read it." in lines


@pytest.mark.parametrize(
    ("identity", "workers"),
    [(A, [worker("w1", A), worker("w2")]), (A, []), (None, [worker("w1", B)]), (A, [worker("w1", B, family="other")])],
)
def test_nothing_to_say(identity: Any, workers: list[WorkerInfo]) -> None:
    assert whereabouts(pending(identity), workers) == []
