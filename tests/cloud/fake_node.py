"""A node without a machine: its kubelet is played here, with real runners as processes of this machine.

It can be lost for the control plane, and come back, without anybody else noticing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cloud.fake_runners import plain_variables, secret_variables
from tests.cloud.k8s import Driver, Json, apply, kubectl
from tests.integration.workers import ROOT

_GHOST = "tests.example/ghost"


class GhostNode:
    """Runs pods of one namespace that ask for it by name, with the flow's container alone.

    Args:
        name: of the node.
        directory: for its pods' files.
        driver: acts on the namespace.
    """

    def __init__(self, name: str, directory: Path, driver: Driver) -> None:
        self._name = name
        self._directory = directory
        self._driver = driver
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # by the pod's name
        self._reachable = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ghost-node", daemon=True)
        self.started: list[str] = []  #: pods whose flow's container was started

    def __enter__(self) -> GhostNode:
        room = {"cpu": "8", "memory": "8Gi", "pods": "100", "ephemeral-storage": "8Gi"}
        apply({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._name, "labels": {_GHOST: self._name}},
            "spec": {"taints": [{"key": _GHOST, "effect": "NoSchedule"}]},
            "status": {"capacity": room, "allocatable": room},
        })  # fmt: skip
        self._reachable.set()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for process in self._processes.values():
            for pid in self._pids(process):
                os.kill(pid, signal.SIGKILL)
            process.wait()
        kubectl("delete", "node", self._name, "--ignore-not-found", "--wait=false", check=False)

    def job(self, *, stays: int) -> Json:
        """A Job for this node, whose pod stays for so many seconds while the node is out of reach."""
        lost = [
            {
                "key": f"node.kubernetes.io/{key}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": stays,
            }
            for key in ("unreachable", "not-ready")
        ]
        pod = {
            "nodeSelector": {_GHOST: self._name},
            "tolerations": [{"key": _GHOST, "operator": "Exists"}, *lost],
            "containers": [{"name": "flow", "image": "flows:1"}],
        }
        return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}}

    def vanish(self) -> None:
        """Out of reach from now on, and all that runs there stops in its tracks."""
        self._reachable.clear()
        for process in self._processes.values():
            for pid in self._pids(process):
                os.kill(pid, signal.SIGSTOP)

    def wake(self) -> None:
        """What runs there goes on; the control plane doesn't see it yet."""
        for process in self._processes.values():
            for pid in self._pids(process):
                os.kill(pid, signal.SIGCONT)

    def come_back(self) -> None:
        """In reach again."""
        self._reachable.set()

    @staticmethod
    def _pids(process: subprocess.Popen[bytes]) -> list[int]:
        """A runner and its child, if they live."""
        if process.poll() is not None:
            return []
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return [process.pid, *(map(int, children.read_text().split()) if children.exists() else ())]

    def _run(self) -> None:
        while not self._stopped.wait(0.5):
            if self._reachable.is_set():
                self._beat()
                for pod in self._driver.list("pods"):
                    if pod["spec"].get("nodeName") == self._name:
                        self._see_to(pod)

    def _beat(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        body = json.dumps({"status": {"conditions": [{**ready, "lastTransitionTime": now, "message": "a ghost"}]}})
        kubectl("patch", "node", self._name, "--subresource=status", "--type=merge", "-p", body)

    def _see_to(self, pod: Json) -> None:
        name = pod["metadata"]["name"]
        process = self._processes.get(name)
        if pod["metadata"].get("deletionTimestamp"):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
            else:
                self._driver.ask("DELETE", f"pods/{name}?gracePeriodSeconds=0")
        elif process is None:
            self._start(pod)
        elif process.poll() is not None and pod["status"]["phase"] == "Running":
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
            self._status(name, "Failed" if code else "Succeeded", state, ready="False")

    def _start(self, pod: Json) -> None:
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        selector = ",".join(f"{label}={metadata['labels'][label]}" for label in ("flow_run_id", "attempt"))
        secrets = self._driver.list("secrets", selector)
        if not secrets:
            return
        folder = self._directory / metadata["name"]
        folder.mkdir()
        (folder / "variables.json").write_text(json.dumps(secret_variables(secrets[0])))
        given: dict[str, str] = {
            **plain_variables(container),
            "DISPATCHER__RUN__UID": metadata["uid"],
            "DISPATCHER__RUN__SECRETS_FILE": str(folder / "variables.json"),
            "DISPATCHER__RUN__LAST_WORDS": str(folder / "words"),
        }
        ours = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        command = [sys.executable, *container["command"][1:]]
        with (folder / "log").open("wb") as log:
            self._processes[metadata["name"]] = subprocess.Popen(
                command, env={**given, **ours}, cwd=folder, stdout=log, stderr=log
            )
        self.started.append(metadata["name"])
        self._status(metadata["name"], "Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, ready="True")

    def _status(self, name: str, phase: str, state: Json, *, ready: str) -> None:
        flow: dict[str, Any] = {"name": "flow", "state": state, "image": "flows:1", "imageID": "", "restartCount": 0}
        conditions = [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")]
        placed = {"type": "PodScheduled", "status": "True"}
        self._driver.status(
            name,
            phase=phase,
            conditions=[placed, *conditions],
            containerStatuses=[{**flow, "ready": ready == "True"}],
        )
