"""A worker of ours that dies between two steps: the next try goes on with the same names, and makes nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from backends.dask_kubernetes.backend import DaskKubernetesBackend
from dispatcher.errors import Transient
from dispatcher.support.failpoints import FailpointError, arm
from tests.chaos import failpoint_scan
from tests.kubernetes_api import FakeCluster
from tests.unit.dask_kubernetes.clusters import made, names_of, start_flow, until_names
from tests.unit.kubernetes.backends import NAME, SECRETS, eventually

ENDS = {"raise": FailpointError, "reply_lost": Transient}

#: What exists after each step of a submission.
STEPS = {
    "cluster.job_made": ("jobs", NAME),
    "cluster.secret_made": ("secrets", NAME),
    "cluster.certificate_made": ("secrets", f"{NAME}-tls"),
    "cluster.policy_made": ("networkpolicies", NAME),
}

#: Of the Dask operator's backend, which has tests of its own.
OF_OPERATOR = {"cluster.operator_made"}

#: Failpoints after a submission.
OF_WORKERS = {"cluster.worker_made", "cluster.worker_deleted"}


def test_each_failpoint_has_a_test() -> None:
    names = {name for name in failpoint_scan.found() if name.startswith("cluster.")}
    assert names == STEPS.keys() | OF_WORKERS | OF_OPERATOR


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", STEPS)
def test_a_submission_goes_on_after_each_step(
    name: str,
    end: str,
    request_: Any,
    cluster: FakeCluster,
    make_backend: Callable[[], DaskKubernetesBackend],
) -> None:
    arm(f"{name}={end}")
    with pytest.raises(ENDS[end]):
        make_backend().submit(request_, SECRETS)
    steps = list(STEPS.values())
    assert sorted(key[::2] for key in cluster.objects) == sorted(steps[: list(STEPS).index(name) + 1])
    handle = make_backend().submit(request_, SECRETS)
    assert sorted(key[::2] for key in cluster.objects) == sorted(steps)
    assert handle["uid"] == cluster.get("jobs", NAME)["metadata"]["uid"]
    assert (made(cluster, "jobs"), made(cluster, "networkpolicies")) == ([NAME], [NAME])
    assert made(cluster, "secrets").count(f"{NAME}-tls") == 1, "the flow's pod may have mounted it"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("worker", [1, 2, 3])
def test_workers_are_completed_after_each(
    worker: int,
    end: str,
    request_: Any,
    handle: Any,
    cluster: FakeCluster,
    make_backend: Callable[[], DaskKubernetesBackend],
) -> None:
    names = ["w1", "w2", "w3"]
    arm(f"cluster.worker_made={end}@{worker}")
    with pytest.raises(ENDS[end]):
        make_backend().create_workers(handle, request_, names)
    assert names_of(cluster, "pods")[1:] == [f"{NAME}-{name}" for name in names[:worker]]
    after = make_backend()
    after.create_workers(handle, request_, names)
    until_names(after, handle, names)
    assert Counter(made(cluster, "pods")) == Counter([f"{NAME}-pod", *(f"{NAME}-{name}" for name in names)])


@pytest.mark.parametrize("end", ENDS)
def test_workers_are_deleted_after_each(
    end: str,
    request_: Any,
    handle: Any,
    cluster: FakeCluster,
    backend: DaskKubernetesBackend,
    make_backend: Callable[[], DaskKubernetesBackend],
) -> None:
    backend.create_workers(handle, request_, ["w1", "w2", "w3"])
    arm(f"cluster.worker_deleted={end}")
    with pytest.raises(ENDS[end]):
        backend.delete_workers(handle, ["w1", "w2"])
    after = make_backend()
    eventually(lambda: after.delete_workers(handle, ["w1", "w2"]), "their end")
    assert names_of(cluster, "pods")[1:] == [f"{NAME}-w3"]


@pytest.mark.parametrize("name", [*STEPS, "cluster.worker_made"])
def test_an_attempt_is_ended_by_its_request_whatever_exists_of_it(
    name: str, request_: Any, cluster: FakeCluster, make_backend: Callable[[], DaskKubernetesBackend]
) -> None:
    first = make_backend()
    arm(f"{name}=raise")
    with suppress(FailpointError):
        handle = first.submit(request_, SECRETS)
        start_flow(cluster)
        first.create_workers(handle, request_, ["w1", "w2"])
    assert f"{NAME}-w2" not in names_of(cluster, "pods")
    eventually(lambda: make_backend().cancel(None, request_), "the end")
    assert not cluster.objects
