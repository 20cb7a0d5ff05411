"""A node for :class:`~tests.kubernetes_api.FakeCluster`: plays Job controller and kubelet with real processes.

A Job gets a pod, whose flow container is the real runner as a process of this machine, started once its Secret exists.
Other containers don't run. Image names in :data:`SCRIPTS` stand for failures before a start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.kubernetes_api import FakeCluster, Json

ROOT = Path(__file__).resolve().parents[1]

#: The records' server as pods reach it.
URL = "redis://records.svc:6379/0"

_SCHEDULED = {"type": "PodScheduled", "status": "True"}
_NO_ROOM = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}


def _waiting(reason: str, message: str) -> Json:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "conditions": [_SCHEDULED], "containerStatuses": [{"name": "flow", "state": state}]}


#: Status of a pod with an image of this name.
SCRIPTS: dict[str, Json] = {
    "image-pull:1": _waiting("ErrImagePull", "dial tcp: i/o timeout"),
    "invalid-name:1": _waiting("InvalidImageName", "couldn't parse image reference"),
    "unschedulable:1": {"phase": "Pending", "conditions": [_NO_ROOM]},
}


class Node:
    """Runs the pods of a cluster.

    Args:
        cluster: the cluster whose Jobs it runs.
        url: the URL that replaces :data:`URL` in containers.
        folder: for files of its pods.
    """

    def __init__(self, cluster: FakeCluster, url: str, folder: Path) -> None:
        self._cluster = cluster
        self._url = url
        self._folder = folder
        self._threads: list[threading.Thread] = []
        self.out_of_memory: set[str] = set()  #: Jobs whose containers end as if they were OOM-killed
        self.started: list[str] = []  #: Jobs, once for each start of their flow's container
        cluster.keep_pods = True
        cluster.on_job = self._start

    def close(self) -> None:
        """End all pods."""
        with self._cluster.changed:
            self._cluster.stopped = True
            self._cluster.changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self, job: Json) -> None:
        thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, job: Json) -> None:
        name = job["metadata"]["name"]
        container = job["spec"]["template"]["spec"]["containers"][0]
        pod = self._cluster.add_pod(job, phase="Pending", conditions=[_SCHEDULED])
        if (script := SCRIPTS.get(container["image"])) is not None:
            self._status(pod, script)
        elif (secret := self._secret(pod, name)) is not None:
            code, message = self._run_container(job, pod, container, secret)
            reason = "OOMKilled" if name in self.out_of_memory else "Error" if code else "Completed"
            state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
            phase = "Failed" if code else "Succeeded"
            self._status(pod, {"phase": phase, "containerStatuses": [{"name": container["name"], "state": state}]})
            ended = {"type": "Failed" if code else "Complete", "status": "True", "reason": "BackoffLimitExceeded"}
            self._change("jobs", name, {"conditions": [ended]})
        self._wait_until(lambda: self._deleted(pod))
        self._cluster.drop("pods", pod["metadata"]["name"])

    def _run_container(self, job: Json, pod: Json, container: Json, secret: Json) -> tuple[int, str]:
        """Run the flow's container to its end; return exit code and termination message."""
        name = job["metadata"]["name"]
        folder = self._folder / name
        folder.mkdir()
        variables, message_file = self._variables(pod, container, secret, folder), folder / "message"
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *container["command"][1:]], env=variables, cwd=folder, stdout=log, stderr=log,
                process_group=0,
            )  # fmt: skip
        self.started.append(name)
        running = {"phase": "Running", "containerStatuses": [{"name": container["name"], "state": {"running": {}}}]}
        self._status(pod, {**running, "pid": process.pid})
        self._wait_until(lambda: process.poll() is not None or self._deleted(pod))
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            self._wait_until(lambda: process.poll() is not None, timeout=10.0)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        return (code if code >= 0 else 128 - code), message_file.read_text() if message_file.exists() else ""

    def _variables(self, pod: Json, container: Json, secret: Json, folder: Path) -> dict[str, str]:
        fields = {"metadata.name": pod["metadata"]["name"], "metadata.uid": pod["metadata"]["uid"]}
        env = {}
        for entry in container["env"]:
            path = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            env[entry["name"]] = entry.get("value", fields.get(path, ""))
        secrets = json.loads(secret["stringData"]["variables.json"])
        file = folder / "variables.json"
        file.write_text(json.dumps({name: self._url if value == URL else value for name, value in secrets.items()}))
        mounted = {"DISPATCHER__RUN__SECRETS_FILE": str(file), "DISPATCHER__RUN__LAST_WORDS": str(folder / "message")}
        local = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        return {**env, **local, **mounted}

    def _secret(self, pod: Json, name: str) -> Json | None:
        key = ("secrets", pod["metadata"]["namespace"], name)
        self._wait_until(lambda: key in self._cluster.objects or self._deleted(pod))
        return self._cluster.objects.get(key)

    def _deleted(self, pod: Json) -> bool:
        current = self._cluster.objects.get(("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]))
        return self._cluster.stopped or current is None or "deletionTimestamp" in current["metadata"]

    def _status(self, pod: Json, status: Json) -> None:
        self._change("pods", pod["metadata"]["name"], {"conditions": [_SCHEDULED], **status})

    def _change(self, kind: str, name: str, status: Json) -> None:
        with self._cluster.changed:
            if (kind, "default", name) in self._cluster.objects:
                self._cluster.change(kind, name, status=status)

    def _wait_until(self, predicate: Any, *, timeout: float = 600.0) -> None:
        with self._cluster.changed:
            waited = 0.0
            while not predicate() and waited < timeout:
                self._cluster.changed.wait(0.05)
                waited += 0.05
