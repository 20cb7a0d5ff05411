"""Two clusters behind one server without names: a worker that is restarted with another kubeconfig concludes nothing.

The other cluster is a stand-in: what is tested is the real cluster's identity, with the rights of the page's Role.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher import State
from dispatcher.inspection.finding import Level
from dispatcher.inspection.places import examine_places
from tests.cloud import flows, k8s
from tests.cloud.sandbox import Sandbox
from tests.kubernetes_api import FakeApiServer, kubeconfig

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]


def test_a_worker_restarted_with_another_kubeconfig(sandbox: Sandbox, tmp_path: Path) -> None:
    """The run goes on, its teardown stays open until its cluster's worker is back, and people are told."""
    worker = sandbox.start_worker()
    run, cancelled = (sandbox.submit(flows.sleep, {"seconds": seconds}) for seconds in (30, 200))
    for started in (run, cancelled):
        sandbox.wait_until_started(started)
    worker.end()
    uid = k8s.kubectl("get", "configmap", "kube-root-ca.crt", "-n", sandbox.name, "-o", "jsonpath={.metadata.uid}")
    with FakeApiServer() as other:
        variables = {"KUBECONFIG": str(kubeconfig(tmp_path, other.port))}
        worker = sandbox.start_worker(variables=variables)
        sandbox.wait_until(
            lambda: [
                line
                for line in sandbox.client.explain(run.id)
                if f"also as kubernetes, the one with kube-system {other.cluster.uid}" in line
            ],
            "which cluster the worker serves",
        )
        assert f"on the cluster with kube-root-ca.crt/{sandbox.name} {uid}." in "".join(sandbox.client.explain(run.id))
        cancelled.cancel()
        assert run.result(timeout=90) == "held"
        sandbox.wait_until(
            lambda: [line for line in sandbox.client.explain(run.id) if uid in line], "why its teardown is open"
        )
        sandbox.wait_until(lambda: cancelled.state is State.CANCELLED, "its runner, which reads the cancel itself")
        for ended in (run, cancelled):
            assert k8s.items("jobs", sandbox.name, f"flow_run_id={ended.id}"), "nobody has deleted it"
        assert not other.cluster.objects
        sandbox.start_worker()  # whose kubeconfig is the right one
        (finding,) = sandbox.wait_until(
            lambda: [finding for finding in examine_places(sandbox.client.workers()) if finding.level is Level.PROBLEM],
            "that the two serve two clusters",
        )
        assert uid in finding.text
        assert other.cluster.uid in finding.text
        worker.end()
    sandbox.expect_end(run, State.SUCCEEDED)
    sandbox.expect_end(cancelled, State.CANCELLED)
