"""Many runs at once on one worker with two pool processes, which hold none of them, on a real cluster.

All have real Jobs and pods, which wait for their scheduling gates, and then for room on a node. With ``CHAOS=long`` all
gates are lifted, which takes a machine with two cores more than three minutes. Otherwise half of them are, and the
others get fake runners.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tests.cloud import flows, k8s
from tests.cloud.fake_runners import FakeRunners
from tests.cloud.sandbox import Sandbox

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

COUNT = 200
STEP = 1 if os.environ.get("CHAOS") == "long" else 2  # of the runs whose pods are started: each, or every second

#: A Job whose pod isn't scheduled before its gate is lifted.
GATED: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "template": {
            "spec": {"schedulingGates": [{"name": "tests.example/gate"}], "containers": [{"name": "flow"}]},
        }
    },
}

#: A node of two cores has room for fewer than twenty of these: the others wait as unschedulable.
RESOURCES = {"requests": {"cpu": "100m", "memory": "32Mi"}}


def lift_gates(admin: k8s.NamespaceAdmin, runs: set[str]) -> None:
    """Lift the scheduling gates of these runs' pods."""
    gated = [pod for pod in admin.list("pods") if pod["spec"].get("schedulingGates")]
    names = [pod["metadata"]["name"] for pod in gated if pod["metadata"]["labels"]["flow_run_id"] in runs]
    for name in names:
        admin.request("PATCH", f"pods/{name}", {"spec": {"schedulingGates": None}})


def test_a_map_of_two_hundred(sandbox: Sandbox) -> None:
    """Each run has its own result and one end, none starts twice, and nothing is left."""
    sandbox.start_worker()
    admin = k8s.NamespaceAdmin(sandbox.name)
    started = time.monotonic()
    environment = sandbox.environment(job_spec=GATED, resources=RESOURCES)
    runs = sandbox.client.map(flows.add, [{"a": n, "b": 1} for n in range(COUNT)], environment=environment)
    real = runs[::STEP]
    ids = {run.id for run in real}
    runners = FakeRunners(admin, sandbox.server.url, lambda a, b: a + b, excluded=ids)
    try:

        def all_done() -> bool:
            lift_gates(admin, ids)
            runners.run_new()
            return all(run.done() for run in runs)

        sandbox.wait_until(all_done, f"the end of {COUNT} runs", timeout=600)
    finally:
        runners.close()
    took = time.monotonic() - started
    assert [run.result(timeout=60) for run in runs] == [n + 1 for n in range(COUNT)]
    kinds = [[str(event.kind) for event in run.events()] for run in runs]
    assert {(names.count("started"), names.count("exited")) for names in kinds} == {(1, 1)}
    assert {sandbox.server.count_of(run, "ran") for run in real} == {1}
    sandbox.wait_until(lambda: not [*admin.list("jobs"), *admin.list("pods")], "an empty namespace", timeout=120)
    gone = time.monotonic() - started
    print(f"{COUNT} runs, {len(real)} in pods: ended after {took:.0f} s, gone after {gone:.0f} s")  # noqa: T201
