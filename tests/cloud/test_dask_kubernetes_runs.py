"""Runs on Dask clusters of their own on a real cluster, with exactly the rights of the documentation's Role.

All are submitted at once; each test then waits for its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher import Run, State
from tests.cloud import dask_flows, k8s
from tests.cloud.dask_sandbox import DaskSandbox, dask_sandbox
from tests.cloud.sandbox import PodServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

TWO = {"min_workers": 2, "max_workers": 2}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
SCHEDULER_LINE = "Scheduler at:"

#: What Pod Security `restricted` asks of a pod, and of a container, whose root is read-only on top.
POD_RULES = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
}
RULES = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def restricted_pod(name: str) -> dict[str, Any]:
    """Return a pod whose container can write to HOME and /tmp alone."""
    mounts = [{"name": "scratch", "mountPath": path, "subPath": path.strip("/")} for path in ("/tmp", "/home/flow")]
    container = {"name": name, "securityContext": RULES, "volumeMounts": mounts}
    return {**POD_RULES, "containers": [container], "volumes": [{"name": "scratch", "emptyDir": {}}]}


def placeholder(name: str) -> dict[str, str]:
    """Return a variable whose value is its name, as in the files that users of Prefect 0.10 have."""
    return {"name": f"PREFECT__{name}", "value": f"PREFECT__{name}"}


#: A Job and a Pod as users of Prefect 0.10 have them: its image, its commands, its labels, its variables.
OLD_VARIABLES = [placeholder("CLOUD__GRAPHQL"), placeholder("CLOUD__AUTH_TOKEN"), placeholder("CONTEXT__FLOW_RUN_ID")]
BLOCKED = {"name": "DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS", "value": "['feed', 'run_function']"}
OLD_JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "prefect-dask-job", "labels": {"app": "prefect-dask-job"}},
    "spec": {
        "template": {
            "metadata": {"labels": {"app": "prefect-dask-job"}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "flow",
                        "image": "prefecthq/prefect:latest",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/bin/sh", "-c"],
                        "args": ["python -c 'import prefect'"],
                        "env": [*OLD_VARIABLES, BLOCKED],
                        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}},
                    }
                ],
            },
        }
    },
}
OLD_POD = {
    "kind": "Pod",
    "metadata": {"labels": {"app": "prefect-dask-worker"}},
    "spec": {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "dask-worker",
                "image": "prefecthq/prefect:latest",
                "imagePullPolicy": "IfNotPresent",
                "args": ["dask-worker", "--no-bokeh", "--death-timeout", "60"],
                "env": [*OLD_VARIABLES, BLOCKED],
                "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def sandbox(
    cluster: str, worker_image: str, pod_server: PodServer, cluster_lock: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskSandbox]:
    with dask_sandbox(pod_server, worker_image, tmp_path_factory.mktemp("sandbox")) as sandbox:
        sandbox.add_namespace(f"{sandbox.name}-restricted", labels=RESTRICTED)
        sandbox.start_worker()
        yield sandbox


@pytest.fixture(scope="module")
def runs(sandbox: DaskSandbox, worker_image: str) -> dict[str, Run[Any]]:
    own = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {**restricted_pod("flow"), "automountServiceAccountToken": False}}},
    }
    restricted = {
        "namespace": f"{sandbox.name}-restricted",
        "scheduler_spec": own,
        "worker_spec": {"kind": "Pod", "spec": restricted_pod("worker")},
    }
    old = {"scheduler_spec": OLD_JOB, "worker_spec": OLD_POD, "resources": None, "worker_resources": None,
           "image": worker_image}  # fmt: skip
    preferring = {"tasks": 40}
    return {
        "array": sandbox.submit(dask_flows.array_sum, {"size": 1_000_000}, environment=TWO),
        "stealing": sandbox.submit(
            dask_flows.prefer_one_worker, preferring, environment={**TWO, "work_stealing": True}
        ),
        "not stealing": sandbox.submit(dask_flows.prefer_one_worker, preferring, environment=TWO),
        "talking": sandbox.submit(dask_flows.talk, environment={"scheduler_logs": True}),
        "restricted": sandbox.submit(dask_flows.whoami, environment=restricted),
        "old": sandbox.submit(dask_flows.pauses, {"tasks": 2, "seconds": 0.1}, environment=old),
        **{f"mapped {number}": run for number, run in enumerate(mapped(sandbox))},
    }


def mapped(sandbox: DaskSandbox) -> list[Run[Any]]:
    """Submit three runs at once."""
    parameters = [{"tasks": 4, "seconds": 0.2}] * 3
    return list(sandbox.client.map(dask_flows.pauses, parameters, environment=sandbox.environment()))


def expect_success(sandbox: DaskSandbox, run: Run[Any], **arguments: Any) -> Any:
    """Wait for a run's success, and until nothing is left of it; return its result."""
    sandbox.expect_end(run, State.SUCCEEDED, timeout=240, **arguments)
    return run.result()


def lines(run: Run[Any]) -> list[str]:
    return [line.text for line in run.logs()]


def test_an_array_is_computed_by_two_workers(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    result = expect_success(sandbox, runs["array"])
    assert result == {"sum": sum(number * number for number in range(1_000_000)), "workers": ["w1", "w2"]}
    assert sandbox.server.count_of(runs["array"], "ran") == 1
    assert sandbox.server.count_of(runs["array"], "on_exit SUCCEEDED") == 1


def test_three_runs_at_once_have_a_cluster_each(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    for number in range(3):
        assert sum(expect_success(sandbox, runs[f"mapped {number}"]).values()) == 4


def test_tasks_stay_where_they_prefer_to_run_unless_work_is_stolen(
    sandbox: DaskSandbox, runs: dict[str, Run[Any]]
) -> None:
    assert expect_success(sandbox, runs["not stealing"]) == 40
    assert 8 <= expect_success(sandbox, runs["stealing"]) <= 32


def test_what_tasks_log_and_print_is_in_the_runs_log_with_the_workers_name(
    sandbox: DaskSandbox, runs: dict[str, Run[Any]]
) -> None:
    run = runs["talking"]
    assert expect_success(sandbox, run) == 4
    logged, printed = "task 4 logs", "task 4 prints"
    sandbox.wait_until(lambda: logged in str(lines(run)) and printed in str(lines(run)), "its lines")
    (line,) = [line for line in run.logs() if logged in line.text]
    assert "w1" in f"{line.stream} {line.text}"


def test_the_schedulers_lines_are_in_the_log_if_asked_for(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    expect_success(sandbox, runs["talking"])
    expect_success(sandbox, runs["array"])
    sandbox.wait_until(lambda: SCHEDULER_LINE in str(lines(runs["talking"])), "the scheduler's lines")
    assert SCHEDULER_LINE not in str(lines(runs["array"]))


def test_flow_and_workers_pass_restricted_with_a_read_only_root(
    sandbox: DaskSandbox, runs: dict[str, Run[Any]]
) -> None:
    result = expect_success(sandbox, runs["restricted"], namespace=f"{sandbox.name}-restricted")
    for place in ("flow", "worker"):
        assert (result[place]["uid"], result[place]["token"]) == (10001, False)
        assert not result[place]["root is writable"]
        assert result[place]["secrets"] == []


def test_files_of_prefect_0_10_run_unchanged(sandbox: DaskSandbox, runs: dict[str, Run[Any]]) -> None:
    assert sum(expect_success(sandbox, runs["old"]).values()) == 2


def test_the_workers_role_names_nothing_but_what_the_page_says() -> None:
    (pods,) = [rule for rule in k8s.rules(k8s.DASK_PAGE) if rule["resources"] == ["pods"]]
    assert sorted(pods["verbs"]) == ["create", "delete", "get", "list", "watch"]
