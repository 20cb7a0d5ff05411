"""Jobs and pods that somebody has labelled as ours: none of them names an attempt's infrastructure."""

from __future__ import annotations

from functools import partial
from typing import Any

from backends.kubernetes.handle import make_handle
from backends.kubernetes.orphans import infrastructure
from dispatcher.runs.attempt import object_name
from dispatcher.support.ids import new_id

RUN, OTHER = new_id(), new_id()


def found(jobs: list[dict[str, Any]], pods: list[dict[str, Any]]) -> list[tuple[str, str]]:
    handle_of = partial(make_handle, cluster="", instance="inst")
    listed = infrastructure(jobs, pods, namespace="flows", handle_of=handle_of, now=0.0)
    return [(each.run_id, str(each.handle["name"])) for each in listed]


def job(name: str) -> dict[str, Any]:
    metadata = {"name": name, "uid": "j1", "run": RUN, "attempt": "1", "instance": "inst"}
    return {"metadata": metadata, "spec": {"suspend": False, "container": "flow"}, "status": {}}


def pod(name: str, run: str, attempt: str = "1") -> dict[str, Any]:
    metadata = {"name": name, "uid": name, "run": run, "attempt": attempt, "instance": "inst", "job": "j1"}
    return {"metadata": {**metadata, "orphaned": True}, "spec": {"container": "flow"}, "status": {}}


def test_a_job_counts_under_the_name_of_its_attempt_alone() -> None:
    name = object_name(RUN, 1)
    assert found([job(name)], []) == [(RUN, name)]
    assert found([job("nightly-backup")], []) == []


def test_pods_of_one_job_that_name_two_attempts_are_nobodys() -> None:
    assert found([], [pod("a", RUN)]) == [(RUN, object_name(RUN, 1))]
    assert found([], [pod("forged", OTHER), pod("a", RUN)]) == []
    assert found([], [pod("a", RUN), pod("forged", RUN, "2")]) == []
