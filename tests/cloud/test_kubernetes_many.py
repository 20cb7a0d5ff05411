"""Many runs at once on one worker with two pool processes, which hold none of them: issue 5, "Real parts and tests".

Real Jobs with real pods, whose runners are played here: two cores would take minutes to start that many. Of pods that
run there are fewer, and as many only with ``CHAOS=long``.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from dispatcher import Run
from tests.cloud import flows, place
from tests.cloud.estate import Estate
from tests.cloud.stand_in import UNPLACED, StandIns

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

COUNT = 200
IN_PODS = COUNT if os.environ.get("CHAOS") == "long" else 20

PARAMETERS = [{"a": n, "b": 1} for n in range(COUNT)]


@pytest.fixture(scope="module")
def driver(estate: Estate) -> place.Driver:
    """Sees all of the namespace, where a worker serves."""
    estate.worker()
    return place.Driver(estate.name)


def all_well(estate: Estate, driver: place.Driver, runs: list[Run[Any]]) -> None:
    """Each has its own result and one end, and nothing is left."""
    assert [run.result(timeout=600) for run in runs] == [n + 1 for n in range(len(runs))]
    kinds = [[str(event.kind) for event in run.events()] for run in runs]
    assert {(found.count("started"), found.count("exited")) for found in kinds} == {(1, 1)}
    estate.until(lambda: not [*driver.list("jobs"), *driver.list("pods")], "an empty namespace", timeout=120)


def test_a_map_of_two_hundred(estate: Estate, driver: place.Driver) -> None:
    stand_ins = StandIns(driver, estate.server.url, lambda a, b: a + b)
    try:
        began = time.monotonic()
        environment = estate.environment(job_spec=UNPLACED, on_exit=None)
        runs = estate.client.map(flows.add, PARAMETERS, environment=environment)
        estate.until(lambda: stand_ins.look() == COUNT, f"{COUNT} claimed attempts", timeout=180)
        took = time.monotonic() - began
        all_well(estate, driver, runs)
        print(f"{COUNT} runs: claimed after {took:.1f} s, gone after {time.monotonic() - began:.1f} s")  # noqa: T201
    finally:
        stand_ins.close()


def test_a_map_in_pods_that_run(estate: Estate, driver: place.Driver) -> None:
    began = time.monotonic()
    runs = estate.client.map(flows.add, PARAMETERS[:IN_PODS], environment=estate.environment())
    all_well(estate, driver, runs)
    print(f"{IN_PODS} runs in real pods: {time.monotonic() - began:.0f} s")  # noqa: T201
    assert {estate.server.noted(run, "ran") for run in runs} == {1}
