"""Access of strangers to a Dask cluster in pods, and the way to its pages: on one run that holds its cluster."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Run, State
from tests.cloud import dask_flows, dask_probe, k8s
from tests.cloud.dask_sandbox import DaskSandbox, dask_sandbox
from tests.cloud.sandbox import SMALL, PodServer
from tests.conftest import PYTHON
from tests.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

#: Prints the addresses at which a container's network listens, other than loopback, as the kernel has them.
LISTENING = """
import pathlib
for name in ("tcp", "tcp6"):
    for line in pathlib.Path("/proc/net", name).read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        host, port = address.split(":")
        if state == "0A":
            print("loopback" if host.endswith(("0100007F", "01000000")) and host.strip("0") else "open", int(port, 16))
"""


@pytest.fixture(scope="module")
def sandbox(
    cluster: str, worker_image: str, pod_server: PodServer, cluster_lock: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaskSandbox]:
    with dask_sandbox(pod_server, worker_image, tmp_path_factory.mktemp("sandbox")) as sandbox:
        sandbox.start_worker()
        yield sandbox


@pytest.fixture(scope="module")
def run(sandbox: DaskSandbox, stranger: str) -> Run[str]:
    """A run that holds a cluster of two workers."""
    run = sandbox.submit(dask_flows.hold, {"seconds": 600}, environment={"min_workers": 2, "max_workers": 2})
    sandbox.wait_until_started(run)
    return run


@pytest.fixture(scope="module")
def stranger(sandbox: DaskSandbox, worker_image: str) -> str:
    """Name of a pod in the same namespace that belongs to no run."""
    container = {"name": "stranger", "image": worker_image, "imagePullPolicy": "IfNotPresent", "resources": SMALL,
                 "command": ["sleep", "3600"]}  # fmt: skip
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    metadata = {"name": "stranger", "namespace": sandbox.name}
    k8s.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    k8s.kubectl("wait", "--for=condition=Ready", "pod/stranger", "-n", sandbox.name, "--timeout=60s")
    return "stranger"


@pytest.fixture(scope="module")
def listening(sandbox: DaskSandbox, run: Run[str]) -> dict[str, set[tuple[str, int]]]:
    """Ports at which each pod of the run listens: ``open`` or ``loopback``, and the port, by the pod's address."""
    return {
        pod["status"]["podIP"]: {
            (words[0], int(words[1]))
            for line in sandbox.execute(pod["metadata"]["name"], "python3", "-c", LISTENING).splitlines()
            if (words := line.split())
        }
        for pod in sandbox.pods(run)
    }


def test_every_open_port_is_tls_and_refuses_strangers(
    sandbox: DaskSandbox, stranger: str, run: Run[str], listening: dict[str, set[tuple[str, int]]]
) -> None:
    flow_pod = sandbox.flow_pod(run)["status"]["podIP"]
    open_ports = [f"{host}:{port}" for host, ports in listening.items() for kind, port in ports if kind == "open"]
    assert f"{flow_pod}:8786" in open_ports
    assert len(listening) == 3
    program = Path(dask_probe.__file__).read_text(encoding="utf-8")
    tried = json.loads(sandbox.execute(stranger, "python3", "-c", program, *open_ports))
    assert set(tried) == set(open_ports)
    assert {result for results in tried.values() for result in results.values()} == {"refused"}, tried


def test_the_pages_listen_on_loopback(
    sandbox: DaskSandbox, run: Run[str], listening: dict[str, set[tuple[str, int]]]
) -> None:
    flow_pod = sandbox.flow_pod(run)["status"]["podIP"]
    assert ("loopback", 8787) in listening[flow_pod]
    assert {port for ports in listening.values() for kind, port in ports if kind == "open"} & {8787, 8788} == set()


def test_the_line_that_show_prints_forwards_to_the_pages(sandbox: DaskSandbox, run: Run[str]) -> None:
    shown = show(sandbox, run)
    (command,) = re.findall(r"kubectl port-forward .*", shown)
    (link,) = re.findall(r"http://(?:localhost|127\.0\.0\.1):\d+/\S*", shown)
    forward = subprocess.Popen(command.split(), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: "200" in answer(link), f"{link} by {command}", timeout=30, every=0.3)
    finally:
        forward.terminate()
        forward.wait()


def show(sandbox: DaskSandbox, run: Run[Any]) -> str:
    """Return what the command prints of a run."""
    program = "from dispatcher.cli import main; main()"
    done = subprocess.run(
        [PYTHON, "-c", program, "show", run.id], env=sandbox.cli_variables(), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def answer(link: str) -> str:
    try:
        with urllib.request.urlopen(link, timeout=5) as response:
            return f"{response.status} {response.read(100)!r}"
    except OSError as error:
        return str(error)


def test_the_certificate_is_in_a_secret_of_its_own_and_in_no_record(sandbox: DaskSandbox, run: Run[str]) -> None:
    secrets = k8s.items("secrets", sandbox.name, f"flow_run_id={run.id}")
    (tls,) = [secret for secret in secrets if secret["metadata"]["name"].endswith("-tls")]
    assert set(tls["data"]) == {"cert.pem", "key.pem"}
    record, _ = sandbox.client.records.runs.get(run.id)
    assert "PRIVATE KEY" not in json.dumps(record.request)
    owners = [owner["kind"] for owner in tls["metadata"]["ownerReferences"]]
    assert owners == ["Job"]


def test_only_pods_of_the_attempt_may_connect(sandbox: DaskSandbox, run: Run[str]) -> None:
    """The object; whether it is enforced depends on the cluster's network."""
    (policy,) = k8s.items("networkpolicies", sandbox.name, f"flow_run_id={run.id}")
    selected = policy["spec"]["podSelector"]["matchLabels"]
    (rule,) = policy["spec"]["ingress"]
    assert [peer["podSelector"]["matchLabels"] for peer in rule["from"]] == [selected]
    assert {pod["metadata"]["labels"]["identifier"] for pod in sandbox.pods(run)} == {selected["identifier"]}


def test_no_pod_has_a_token_of_the_cluster(sandbox: DaskSandbox, run: Run[str]) -> None:
    volumes = [str(pod["spec"].get("volumes")) for pod in sandbox.pods(run)]
    assert not [text for text in volumes if "serviceAccountToken" in text]


def test_a_cancel_removes_everything(sandbox: DaskSandbox, run: Run[str]) -> None:
    assert run.cancel()
    sandbox.expect_end(run, State.CANCELLED)
    assert sandbox.server.count_of(run, "on_exit CANCELLED") == 1
