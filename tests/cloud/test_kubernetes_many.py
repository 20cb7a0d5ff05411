"""Many runs at once on one worker with two pool processes, which hold none of them: issue 5, "Real parts and tests".

All have real Jobs and pods, which wait until they are let in, and then for a place on a node with room for some of them
at a time. With ``CHAOS=long`` all are let in; that takes a machine with two cores more than three minutes. Else half of
them are, and the runners of the others are played here.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tests.cloud import flows, k8s
from tests.cloud.fake_runners import StandIns
from tests.cloud.sandbox import Estate

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

COUNT = 200
EACH = 1 if os.environ.get("CHAOS") == "long" else 2  # every one or every second of them runs in its pod

#: A Job whose pod no scheduler sees before its gate is lifted.
GATED: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {
        "template": {
            "spec": {"schedulingGates": [{"name": "tests.example/door"}], "containers": [{"name": "flow"}]},
        }
    },
}

#: A node of two cores has room for fewer than twenty: the others wait as unschedulable.
ROOM = {"requests": {"cpu": "100m", "memory": "32Mi"}}


def let_in(driver: k8s.Driver, runs: set[str]) -> None:
    """Lift the gates of these runs' pods."""
    gated = [pod for pod in driver.list("pods") if pod["spec"].get("schedulingGates")]
    ours = [pod["metadata"]["name"] for pod in gated if pod["metadata"]["labels"]["flow_run_id"] in runs]
    for name in ours:
        driver.ask("PATCH", f"pods/{name}", {"spec": {"schedulingGates": None}})


def test_a_map_of_two_hundred(estate: Estate) -> None:
    """Each has its own result and one end, none starts twice, and nothing is left."""
    estate.worker()
    driver = k8s.Driver(estate.name)
    began = time.monotonic()
    environment = estate.environment(job_spec=GATED, resources=ROOM)
    runs = estate.client.map(flows.add, [{"a": n, "b": 1} for n in range(COUNT)], environment=environment)
    real = runs[::EACH]
    ids = {run.id for run in real}
    stand_ins = StandIns(driver, estate.server.url, lambda a, b: a + b, besides=ids)
    try:

        def look() -> bool:
            let_in(driver, ids)
            stand_ins.look()
            return all(run.done() for run in runs)

        estate.until(look, f"the end of {COUNT} runs", timeout=600)
    finally:
        stand_ins.close()
    took = time.monotonic() - began
    assert [run.result(timeout=60) for run in runs] == [n + 1 for n in range(COUNT)]
    kinds = [[str(event.kind) for event in run.events()] for run in runs]
    assert {(found.count("started"), found.count("exited")) for found in kinds} == {(1, 1)}
    assert {estate.server.noted(run, "ran") for run in real} == {1}
    estate.until(lambda: not [*driver.list("jobs"), *driver.list("pods")], "an empty namespace", timeout=120)
    gone = time.monotonic() - began
    print(f"{COUNT} runs, {len(real)} in pods: ended after {took:.0f} s, gone after {gone:.0f} s")  # noqa: T201
