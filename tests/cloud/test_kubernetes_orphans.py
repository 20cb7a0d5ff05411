"""A Job that no run wants, on a real cluster: issue 5, "Orphan sweep both ways, ``dispatcher gc``"."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from backends.kubernetes.backend import KubernetesBackend
from dispatcher import Settings, State
from dispatcher.inspection.orphans import OrphanSweep
from dispatcher.runs.attempt import Attempt, object_name, shard_of
from dispatcher.support.ids import new_id
from tests.cloud import flows, place
from tests.cloud.estate import Estate
from tests.integration.workers import KEYS

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]


def orphan(estate: Estate, settings: Settings) -> str:
    """Create the Job of a run whose record isn't there; the run's id."""
    run_id = new_id()
    attempt = Attempt(
        run_id=run_id,
        number=1,
        name=object_name(run_id, 1),
        instance=estate.client.records.instance,
        shard=shard_of("kubernetes", run_id),
        environment=estate.environment().to_json(),
        variables={"DISPATCHER__RUN__ID": run_id},
    )
    with closing(KubernetesBackend(settings)) as backend:
        backend.submit(backend.prepare(attempt), {})
    return run_id


def test_gc_names_it_and_a_worker_ends_it(estate: Estate, image: str) -> None:
    """It is seen twice and old enough; the Job of a run that lives isn't touched."""
    served = {"namespaces": [estate.name], "image": image}
    settings = Settings.load(url=estate.server.url, signing_keys=json.dumps(KEYS), kubernetes=served)
    run_id = orphan(estate, settings)
    with closing(OrphanSweep(estate.client.records, settings, ["kubernetes"])) as sweep:
        assert [one.infrastructure.run_id for one in sweep.orphans(older=0.0)] == [run_id]
        worker = estate.worker()
        stays = estate.submit(flows.hold, {"seconds": 25})
        estate.begun(stays)
        assert stays.id not in {one.infrastructure.run_id for one in sweep.orphans(older=0.0)}
        selector = f"flow_run_id={run_id}"
        estate.until(
            lambda: not place.items("jobs,pods,secrets", estate.name, selector), "the end of the orphan", timeout=120
        )
        worker.says(f"attempt 1 of run {run_id} is wanted by nobody", timeout=10)
        estate.ended(stays, State.SUCCEEDED)
        assert sweep.orphans(older=0.0) == []
