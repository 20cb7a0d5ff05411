"""A Job without a run on a real cluster: listed by ``dispatcher gc``, deleted by a worker."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from backends.kubernetes.backend import KubernetesBackend
from dispatcher import Settings, State
from dispatcher.inspection.orphans import OrphanCleanup
from dispatcher.runs.attempt import Attempt, object_name, shard_of
from dispatcher.support.ids import new_id
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Sandbox
from tests.integration.workers import KEYS

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]


def create_orphan(sandbox: Sandbox, settings: Settings) -> str:
    """Create the Job of a run without a record; return the run's id."""
    run_id = new_id()
    attempt = Attempt(
        run_id=run_id,
        number=1,
        name=object_name(run_id, 1),
        instance=sandbox.client.records.instance,
        shard=shard_of("kubernetes", run_id),
        environment=sandbox.environment().to_json(),
        variables={"DISPATCHER__RUN__ID": run_id},
    )
    with closing(KubernetesBackend(settings)) as backend:
        backend.submit(backend.prepare(attempt), {})
    return run_id


def test_gc_names_it_and_a_worker_ends_it(sandbox: Sandbox, image: str) -> None:
    """It is deleted once it is old enough and was listed twice; the Job of a live run isn't touched."""
    kubernetes = {"namespaces": [sandbox.name], "image": image}
    settings = Settings.load(url=sandbox.server.url, signing_keys=json.dumps(KEYS), kubernetes=kubernetes)
    run_id = create_orphan(sandbox, settings)
    with closing(OrphanCleanup(sandbox.client.records, settings, ["kubernetes"])) as sweep:
        assert [orphan.infrastructure.run_id for orphan in sweep.orphans(older=0.0)] == [run_id]
        worker = sandbox.start_worker()
        live = sandbox.submit(flows.sleep, {"seconds": 25})
        sandbox.wait_until_started(live)
        assert live.id not in {orphan.infrastructure.run_id for orphan in sweep.orphans(older=0.0)}
        selector = f"flow_run_id={run_id}"
        sandbox.wait_until(
            lambda: not k8s.items("jobs,pods,secrets", sandbox.name, selector), "the end of the orphan", timeout=120
        )
        worker.says(f"Deleting orphaned infrastructure of run {run_id}, attempt 1", timeout=10)
        sandbox.expect_end(live, State.SUCCEEDED)
        assert sweep.orphans(older=0.0) == []
