"""Starts that hang, on a real cluster: ``explain`` says why soon after the cluster knows, and ``start_within`` ends so.

All runs are submitted at once. The table of reasons is tested by tests/unit/kubernetes/test_start.py.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from dispatcher import Cause, Run, State
from tests.cloud import flows, k8s
from tests.cloud.sandbox import SMALL, Sandbox

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

#: Seconds after which ``start_within`` ends the runs that only wait.
START_WITHIN = 120.0

GARBAGE = {"name": "garbage", "configMap": {"name": "garbage", "defaultMode": 0o755}}


@dataclass(frozen=True)
class Row:
    """A Job that doesn't start: fields of its pod and flow container, expected cause and text.

    ``ends``: by itself. ``later``: what replaces the text in the end.
    """

    cause: Cause
    text: str
    pod: dict[str, Any] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    ends: bool = False
    later: str = ""


def side_car(image: str, name: str, script: str, **more: Any) -> dict[str, Any]:
    """Return an init container that runs a shell script."""
    return {"name": name, "image": image, "command": ["sh", "-c", script], "resources": SMALL, **more}


def waiting_rows(image: str, silent_registry: str) -> dict[str, Row]:
    """Return Jobs whose pods wait for an image, or for the containers before the flow's."""
    failing = {"startupProbe": {"exec": {"command": ["false"]}, "failureThreshold": 100}, "restartPolicy": "Always"}
    return {
        "image being pulled": Row(
            Cause.IMAGE_PULL,
            f"image {silent_registry}/x:1 is being pulled since 2",
            arguments={"image": f"{silent_registry}/x:1"},
            later="TLS handshake timeout",
        ),
        "init container runs": Row(
            Cause.START_FAILED,
            "init container prepare runs since 2",
            {"initContainers": [side_car(image, "prepare", "sleep 3600")]},
        ),
        "init container fails": Row(
            Cause.START_FAILED,
            "init container prepare: ended with exit code 3",
            {"initContainers": [side_car(image, "prepare", "echo no such table; exit 3")]},
            ends=True,
        ),
        "side-car in a crash loop": Row(
            Cause.START_FAILED,
            "side-car mesh is started again and again, and ends with exit code 3 (Error)",
            {"initContainers": [side_car(image, "mesh", "sleep 1; exit 3", **failing)]},
        ),
        "side-car that doesn't start": Row(
            Cause.START_FAILED,
            "and its startup probe hasn't succeeded",
            {"initContainers": [side_car(image, "mesh", "sleep 3600", **failing)]},
        ),
    }


REFUSED_ROWS = {
    "missing ServiceAccount": Row(
        Cause.CONFIG_ERROR, 'serviceaccount "nobody" not found', {"serviceAccountName": "nobody"}, ends=True
    ),
    "missing PriorityClass": Row(
        Cause.CONFIG_ERROR, "no PriorityClass with name nope", {"priorityClassName": "nope"}, ends=True
    ),
    "more than a LimitRange allows": Row(
        Cause.CONFIG_ERROR,
        "maximum memory usage per Container is 8Gi",
        arguments={"resources": {"requests": {"cpu": "10m", "memory": "9Gi"}, "limits": {"memory": "9Gi"}}},
        ends=True,
    ),
    "missing ConfigMap": Row(
        Cause.CONFIG_ERROR,
        'configmap "nope" not found',
        {"volumes": [{"name": "settings", "configMap": {"name": "nope"}}]},
        {"volumeMounts": [{"name": "settings", "mountPath": "/settings"}]},
        ends=True,
    ),
    "missing claim": Row(
        Cause.UNSCHEDULABLE,
        'persistentvolumeclaim "nope" not found',
        {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "nope"}}]},
    ),
    "missing template of a resource claim": Row(
        Cause.CONFIG_ERROR,
        'resource claim template "nope"',
        {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "nope"}]},
        ends=True,
    ),
    "a node that doesn't exist": Row(
        Cause.UNSCHEDULABLE, "its pod names node nowhere (spec.nodeName)", {"nodeName": "nowhere"}, ends=True
    ),
    "no such node": Row(Cause.UNSCHEDULABLE, "affinity/selector", {"nodeSelector": {"disk": "none-such"}}),
    "a scheduling gate": Row(
        Cause.UNSCHEDULABLE, "example.com/later", {"schedulingGates": [{"name": "example.com/later"}]}
    ),
    "no command": Row(
        Cause.START_FAILED, "executable file not found", arguments={"env": {"PATH": "/nowhere"}}, ends=True
    ),
    "another CPU architecture": Row(
        Cause.START_FAILED,
        "exec /garbage/python3: exec format error",
        {"volumes": [GARBAGE]},
        {"volumeMounts": [{"name": "garbage", "mountPath": "/garbage"}]},
        {"env": {"PATH": "/garbage"}},
        ends=True,
    ),
}


def rows(image: str, silent_registry: str) -> dict[str, Row]:
    """Return all Jobs of this module."""
    return waiting_rows(image, silent_registry) | REFUSED_ROWS


NAMES = list(rows("", ""))


@pytest.fixture(scope="module")
def silent_registry() -> Iterator[str]:
    """Address of a registry that takes connections and never answers."""
    with closing(socket.create_server((k8s.address(), 0), backlog=100)) as listener:
        yield f"{k8s.address()}:{listener.getsockname()[1]}"


def environment(row: Row) -> dict[str, Any]:
    pod = {**row.pod, "containers": [{"name": "flow", **row.container}]}
    return {"job_spec": {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}}, **row.arguments}


@pytest.fixture(scope="module")
def table(image: str, silent_registry: str) -> dict[str, Row]:
    return rows(image, silent_registry)


@pytest.fixture(scope="module")
def runs(sandbox: Sandbox, table: dict[str, Row]) -> dict[str, Run[Any]]:
    """One run for each row, all submitted at once."""
    namespaced = {"namespace": sandbox.name}
    limit = {"type": "Container", "max": {"memory": "8Gi"}, "default": {"memory": "512Mi"}}
    k8s.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "garbage", **namespaced},
         "data": {"python3": "\x7fELF of another architecture"}},
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits", **namespaced},
         "spec": {"limits": [limit]}},
    )  # fmt: skip
    sandbox.start_worker()
    return {
        name: sandbox.submit(flows.add, {"a": 1, "b": 2}, environment=environment(row), start_within=START_WITHIN)
        for name, row in table.items()
    }


def explained(sandbox: Sandbox, run: Run[Any]) -> str:
    return "\n".join(sandbox.client.explain(run))


@pytest.mark.parametrize("name", NAMES)
def test_explain_says_why_it_does_not_start(
    name: str, sandbox: Sandbox, table: dict[str, Row], runs: dict[str, Run[Any]]
) -> None:
    row, run = table[name], runs[name]

    def text() -> str:
        tail = [] if run.state not in {State.CRASHED, State.TIMED_OUT} else [line.text for line in run.logs()]
        return "\n".join([explained(sandbox, run), *tail])

    sandbox.wait_until(lambda: row.text in text(), f"{row.text!r} in the output of explain", timeout=90)
    assert str(row.cause) in text()


@pytest.mark.parametrize("name", [name for name, row in rows("", "").items() if row.ends])
def test_what_will_never_start_ends(
    name: str, sandbox: Sandbox, table: dict[str, Row], runs: dict[str, Run[Any]]
) -> None:
    sandbox.expect_end(runs[name], State.CRASHED, table[name].cause, timeout=150)


@pytest.mark.parametrize("name", [name for name, row in rows("", "").items() if not row.ends])
def test_start_within_ends_the_others_with_that_cause(
    name: str, sandbox: Sandbox, table: dict[str, Row], runs: dict[str, Run[Any]]
) -> None:
    error = sandbox.expect_end(runs[name], State.CRASHED, table[name].cause, timeout=START_WITHIN + 60)
    assert "not started within 120 s" in str(error)
    assert (table[name].later or table[name].text) in str(error)


def test_the_last_lines_of_a_failed_init_container_are_kept(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    run = runs["init container fails"]
    sandbox.wait_until(lambda: list(run.logs()), "its last lines")
    assert [(line.stream, line.text) for line in run.logs()] == [("init/prepare", "no such table")]


def test_a_job_suspended_by_hand_is_told_from_a_quota_queues(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    """No quota queue holds it, so ``start_within`` goes on."""
    job = {
        "job_spec": environment(Row(Cause.DEADLINE, "", {"schedulingGates": [{"name": "example.com/later"}]}))[
            "job_spec"
        ]
    }
    run = sandbox.submit(flows.add, {"a": 1, "b": 2}, environment=job, start_within=20)
    [pod] = sandbox.wait_until(lambda: sandbox.pods(run), "its pod")
    name = pod["metadata"]["ownerReferences"][0]["name"]
    k8s.kubectl("patch", "job", name, "-n", sandbox.name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    error = sandbox.expect_end(run, State.TIMED_OUT, Cause.DEADLINE, timeout=60)
    assert "is suspended, not by a quota queue but by kubectl-patch" in str(error)


def test_a_readiness_gate_holds_nothing(sandbox: Sandbox, runs: dict[str, Run[Any]]) -> None:
    gated = environment(Row(Cause.DEADLINE, "", {"readinessGates": [{"conditionType": "example.com/ready"}]}))
    run = sandbox.submit(flows.add, {"a": 1, "b": 2}, environment=gated)
    sandbox.expect_end(run, State.SUCCEEDED)


@pytest.mark.parametrize(
    ("label", "url", "text"),
    [
        ("password", "redis://:not-the-password@{host}:{port}/0", "as user default: redis://{host}:{port}/0 refuses"),
        ("port", "redis://:not-the-password@{host}:{silent}/0", "as user default: no answer for 3 s"),
        ("name", "redis://me:not-the-password@redis.nope:6379/0", "as user me: the host name of redis://redis.nope"),
    ],
)
def test_explain_says_that_the_runner_cannot_reach_redis(
    label: str, url: str, text: str, sandbox: Sandbox, runs: dict[str, Run[Any]], silent_registry: str
) -> None:
    """The supervisor reads it from the log of a container that has run for 10 s; the password is nowhere."""
    server = urlsplit(sandbox.server.url)
    places = {"host": server.hostname, "port": server.port, "silent": silent_registry.rpartition(":")[2]}
    variables = {"DISPATCHER__KUBERNETES__URL": url.format(**places), "DISPATCHER__WORKER__LABELS": f'["{label}"]'}
    worker = sandbox.start_worker(variables=variables)
    run = sandbox.submit(flows.add, {"a": 1, "b": 2}, environment={"labels": [label]}, start_within=60)
    sandbox.wait_until(lambda: _runs(sandbox, run), "its container", timeout=60)
    started = time.monotonic()
    expected = text.format(**places)
    sandbox.wait_until(lambda: expected in explained(sandbox, run), f"{expected!r} in the output of explain")
    print(f"explained {time.monotonic() - started:.1f} s after the container was seen")  # noqa: T201
    assert "DISPATCHER__KUBERNETES__URL" in explained(sandbox, run)
    pod = sandbox.pods(run)[0]["metadata"]["name"]
    log = k8s.kubectl("logs", pod, "-n", sandbox.name)
    assert "runner: can't reach Redis" in log
    error = sandbox.expect_end(run, State.CRASHED, Cause.START_FAILED, timeout=90)
    assert expected.partition(":")[0] in str(error), "the last of its reasons, which may have other words"
    shown = [log, worker.output, str(error), explained(sandbox, run), *(line.text for line in run.logs())]
    assert not [part for part in shown if "not-the-password" in part]
    worker.end()


def _runs(sandbox: Sandbox, run: Run[Any]) -> bool:
    statuses = [status for pod in sandbox.pods(run) for status in pod["status"].get("containerStatuses", ())]
    return any("running" in status["state"] for status in statuses)
