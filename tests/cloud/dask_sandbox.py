"""Sandbox of a test module whose flows run on Dask clusters of their own, and what such a cluster consists of."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dispatcher import DaskKubernetesEnvironment, Run
from dispatcher.environments.base import Environment
from tests.cloud import k8s
from tests.cloud.flows import count_on_exit
from tests.cloud.sandbox import SMALL, PodServer, Sandbox
from tests.integration.workers import KEYS, ROOT

#: Label of the pod of a Dask worker; its value is the worker's name, such as ``w1``.
WORKER = "dask-worker"

#: Memory and processor of a Dask worker.
WORKER_RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}


class DaskSandbox(Sandbox):
    """Sandbox for ``DaskKubernetesEnvironment``, whose workers have the rights of docs/dask-kubernetes.md."""

    backend = "dask-kubernetes"
    page = k8s.DASK_PAGE
    kinds = "jobs,pods,secrets,networkpolicies"

    def environment(self, **arguments: Any) -> Environment:
        """Return the environment of small pods whose flow can count events."""
        env = {"LEDGER": self.ledger, **arguments.pop("env", {})}
        defaults = {"resources": SMALL, "worker_resources": WORKER_RESOURCES, "on_exit": count_on_exit}
        return DaskKubernetesEnvironment(**{**defaults, "env": env, **arguments})

    @property
    def ledger(self) -> str:
        """The URL of the database in which flows and tasks count."""
        return self.server.url.removesuffix("0") + "1"

    def dask_workers(self, run: Run[Any]) -> dict[str, dict[str, Any]]:
        """Return the pods of a run's Dask workers, by their names."""
        pods = k8s.items("pods", self.name, f"flow_run_id={run.id},{WORKER}")
        return {pod["metadata"]["labels"][WORKER]: pod for pod in pods}

    def live_dask_workers(self, run: Run[Any]) -> list[str]:
        """Return the names of the Dask workers whose pods run or will, and aren't being deleted."""
        return [
            name
            for name, pod in self.dask_workers(run).items()
            if pod["status"]["phase"] in {"Pending", "Running"} and "deletionTimestamp" not in pod["metadata"]
        ]

    def flow_pod(self, run: Run[Any]) -> dict[str, Any]:
        """Return the pod of a run's flow, once there is one."""
        pods = self.wait_until(
            lambda: k8s.items("pods", self.name, f"flow_run_id={run.id},!{WORKER}"), f"the flow's pod of {run.id}"
        )
        pod: dict[str, Any] = pods[0]
        return pod

    def cli_variables(self) -> dict[str, str]:
        """Return the variables of a command that connects to the sandbox's server."""
        own = {
            "PYTHONPATH": str(ROOT),
            "DISPATCHER__URL": self.server.url,
            "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
        }
        return {**os.environ, **own}

    def execute(self, pod: str, *command: str, container: str = "") -> str:
        """Run a command in a pod and return its output."""
        of = ["-c", container] if container else []
        return k8s.kubectl("exec", "-n", self.name, pod, *of, "--", *command)


@contextmanager
def dask_sandbox(server: PodServer, image: str, directory: Path) -> Iterator[DaskSandbox]:
    """Open a sandbox with one namespace, and close it at the end."""
    sandbox = DaskSandbox(server, image, directory, f"dsp-{secrets.token_hex(3)}")
    try:
        sandbox.open()
        yield sandbox
    finally:
        sandbox.close()


#: Sends SIGKILL to the processes of a container whose command line has all of some words; prints their number.
KILL = """
import os, pathlib, signal, sys
killed = 0
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (process / "cmdline").read_bytes().decode().split("\\0")
    except OSError:
        continue
    if int(process.name) != os.getpid() and all(any(word in given for given in words) for word in sys.argv[1:]):
        os.kill(int(process.name), signal.SIGKILL)
        killed += 1
print(killed)
"""


@contextmanager
def at_most(seconds: float, event: str) -> Iterator[None]:
    """Fail if the body takes longer."""
    begin = time.monotonic()
    yield
    taken = time.monotonic() - begin
    print(f"{event}: {taken:.1f} s")  # noqa: T201 - measured, for whoever reads the output
    assert taken <= seconds, f"{event} took {taken:.1f} s, more than {seconds:g} s"
