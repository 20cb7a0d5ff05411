"""A fake of Kueue for one namespace: a new Job is suspended, and resumed when there is room."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tests.cloud.k8s import NamespaceAdmin
from tests.cloud.webhook import Webhook
from tests.kubernetes_api import Json

LABEL = "kueue.x-k8s.io/queue-name"


class QuotaQueue:
    """Suspends Jobs with its label, and lets one run at a time, oldest first. Only it writes ``suspend``.

    Args:
        namespace: the namespace.
        directory: for the webhook's certificate.
        admin: client of the namespace.
    """

    def __init__(self, namespace: str, directory: Path, admin: NamespaceAdmin) -> None:
        self._admin = admin
        self._webhook = Webhook(namespace, directory, _suspend_patch)
        self._stopped = threading.Event()
        self._admitting = threading.Event()
        self._lock = threading.Lock()
        self._preempted: list[str] = []  # UIDs of Jobs that queue behind all others
        self._thread = threading.Thread(target=self._run, name="quota-queue", daemon=True)
        self.admitted: list[str] = []  #: run ids, in order

    def __enter__(self) -> QuotaQueue:
        self._webhook.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._webhook.__exit__(None, None, None)

    def open(self) -> None:
        """Admit Jobs from now on."""
        self._admitting.set()

    def preempt(self, run_id: str) -> None:
        """Suspend a run's Job again, and queue it behind all others."""
        with self._lock:
            (job,) = self._admin.list("jobs", f"flow_run_id={run_id}")
            self._suspend(job, True)
            self._preempted.append(job["metadata"]["uid"])

    def _run(self) -> None:
        while not self._stopped.wait(0.2):
            with self._lock:
                self._admit_next()

    def _admit_next(self) -> None:
        jobs = [job for job in self._admin.list("jobs", LABEL) if not _has_ended(job)]
        if not self._admitting.is_set() or any(not job["spec"].get("suspend") for job in jobs):
            return
        waiting = sorted(jobs, key=self._order)
        for job in waiting[:1]:
            self._suspend(job, False)
            self.admitted.append(job["metadata"]["labels"]["flow_run_id"])

    def _order(self, job: Json) -> tuple[bool, str, str]:
        metadata = job["metadata"]
        return metadata["uid"] in self._preempted, metadata["creationTimestamp"], metadata["name"]

    def _suspend(self, job: Json, suspend: bool) -> None:
        try:
            self._admin.request("PATCH", f"jobs/{job['metadata']['name']}", {"spec": {"suspend": suspend}})
        except LookupError:  # it was deleted meanwhile
            return


def _suspend_patch(item: Json) -> list[Json]:
    """Return the patch of a new object, as Kueue's webhook does."""
    if item["kind"] != "Job" or LABEL not in (item["metadata"].get("labels") or {}):
        return []
    return [{"op": "add", "path": "/spec/suspend", "value": True}]


def _has_ended(job: Json) -> bool:
    conditions: list[dict[str, Any]] = job.get("status", {}).get("conditions") or []
    final = {"Complete", "Failed"}
    return "deletionTimestamp" in job["metadata"] or any(
        condition["type"] in final and condition["status"] == "True" for condition in conditions
    )
