"""A node object without a machine. The test plays its kubelet, with real runners as processes of this machine.

The control plane can lose it and get it back, without an effect on the cluster's real nodes.
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
from tests.cloud.k8s import Json, NamespaceAdmin, apply, kubectl
from tests.integration.workers import ROOT

_LABEL = "tests.example/fake-node"


class FakeNode:
    """Runs pods of one namespace that ask for it by name, with the flow's container alone.

    Args:
        name: the node's name.
        directory: for files of its pods.
        admin: client of the namespace.
    """

    def __init__(self, name: str, directory: Path, admin: NamespaceAdmin) -> None:
        self._name = name
        self._directory = directory
        self._admin = admin
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # by name of the pod
        self._reachable = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake-node", daemon=True)
        self.started: list[str] = []  #: names of pods, in the order of their start

    def __enter__(self) -> FakeNode:
        capacity = {"cpu": "8", "memory": "8Gi", "pods": "100", "ephemeral-storage": "8Gi"}
        apply({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._name, "labels": {_LABEL: self._name}},
            "spec": {"taints": [{"key": _LABEL, "effect": "NoSchedule"}]},
            "status": {"capacity": capacity, "allocatable": capacity},
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

    def job(self, *, toleration_seconds: int) -> Json:
        """Return a Job for this node, whose pod tolerates an unreachable node for some seconds."""
        tolerations = [
            {
                "key": f"node.kubernetes.io/{key}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": toleration_seconds,
            }
            for key in ("unreachable", "not-ready")
        ]
        pod = {
            "nodeSelector": {_LABEL: self._name},
            "tolerations": [{"key": _LABEL, "operator": "Exists"}, *tolerations],
            "containers": [{"name": "flow", "image": "flows:1"}],
        }
        return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}}}

    def disconnect(self) -> None:
        """Stop the heartbeats, and suspend the node's processes."""
        self._reachable.clear()
        for process in self._processes.values():
            for pid in self._pids(process):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the node's processes. The control plane still considers it lost."""
        for process in self._processes.values():
            for pid in self._pids(process):
                os.kill(pid, signal.SIGCONT)

    def reconnect(self) -> None:
        """Send heartbeats again."""
        self._reachable.set()

    @staticmethod
    def _pids(process: subprocess.Popen[bytes]) -> list[int]:
        """Return the PIDs of a runner and its child, if they are alive."""
        if process.poll() is not None:
            return []
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return [process.pid, *(map(int, children.read_text().split()) if children.exists() else ())]

    def _run(self) -> None:
        while not self._stopped.wait(0.5):
            if self._reachable.is_set():
                self._send_heartbeat()
                for pod in self._admin.list("pods"):
                    if pod["spec"].get("nodeName") == self._name:
                        self._sync(pod)

    def _send_heartbeat(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        body = json.dumps({"status": {"conditions": [{**ready, "lastTransitionTime": now, "message": "a fake node"}]}})
        kubectl("patch", "node", self._name, "--subresource=status", "--type=merge", "-p", body)

    def _sync(self, pod: Json) -> None:
        name = pod["metadata"]["name"]
        process = self._processes.get(name)
        if pod["metadata"].get("deletionTimestamp"):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
            else:
                self._admin.request("DELETE", f"pods/{name}?gracePeriodSeconds=0")
        elif process is None:
            self._start(pod)
        elif process.poll() is not None and pod["status"]["phase"] == "Running":
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
            self._status(name, "Failed" if code else "Succeeded", state, ready="False")

    def _start(self, pod: Json) -> None:
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        selector = ",".join(f"{label}={metadata['labels'][label]}" for label in ("flow_run_id", "attempt"))
        secrets = self._admin.list("secrets", selector)
        if not secrets:
            return
        folder = self._directory / metadata["name"]
        folder.mkdir()
        (folder / "variables.json").write_text(json.dumps(secret_variables(secrets[0])))
        env: dict[str, str] = {
            **plain_variables(container),
            "DISPATCHER__RUN__UID": metadata["uid"],
            "DISPATCHER__RUN__SECRETS_FILE": str(folder / "variables.json"),
            "DISPATCHER__RUN__LAST_WORDS": str(folder / "message"),
        }
        local = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        command = [sys.executable, *container["command"][1:]]
        with (folder / "log").open("wb") as log:
            self._processes[metadata["name"]] = subprocess.Popen(
                command, env={**env, **local}, cwd=folder, stdout=log, stderr=log
            )
        self.started.append(metadata["name"])
        self._status(metadata["name"], "Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, ready="True")

    def _status(self, name: str, phase: str, state: Json, *, ready: str) -> None:
        flow: dict[str, Any] = {"name": "flow", "state": state, "image": "flows:1", "imageID": "", "restartCount": 0}
        conditions = [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")]
        scheduled = {"type": "PodScheduled", "status": "True"}
        self._admin.set_pod_status(
            name,
            phase=phase,
            conditions=[scheduled, *conditions],
            containerStatuses=[{**flow, "ready": ready == "True"}],
        )
