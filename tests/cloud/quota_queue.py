"""A queue of Jobs as Kueue keeps it, played on one namespace: a new Job is suspended, and runs when there is room."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from tests.cloud.k8s import Driver
from tests.cloud.webhook import Webhook
from tests.kubernetes_api import Json

LABEL = "kueue.x-k8s.io/queue-name"


class QuotaQueue:
    """Suspends what carries its label, and lets one Job run at a time, oldest first; it alone writes ``suspend``.

    Args:
        namespace: where.
        directory: for the webhook's certificate.
        driver: acts on the namespace.
    """

    def __init__(self, namespace: str, directory: Path, driver: Driver) -> None:
        self._driver = driver
        self._webhook = Webhook(namespace, directory, _suspended)
        self._stopped = threading.Event()
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._last: list[str] = []  # preempted Jobs, by UID: behind all others
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
        """There is room for one from now on."""
        self._open.set()

    def preempt(self, run_id: str) -> None:
        """Take a run's place back; its Job would get another one, after all others."""
        with self._lock:
            (job,) = self._driver.list("jobs", f"flow_run_id={run_id}")
            self._suspend(job, True)
            self._last.append(job["metadata"]["uid"])

    def _run(self) -> None:
        while not self._stopped.wait(0.2):
            with self._lock:
                self._look()

    def _look(self) -> None:
        jobs = [job for job in self._driver.list("jobs", LABEL) if not _over(job)]
        if not self._open.is_set() or any(not job["spec"].get("suspend") for job in jobs):
            return
        waiting = sorted(jobs, key=self._place)
        for job in waiting[:1]:
            self._suspend(job, False)
            self.admitted.append(job["metadata"]["labels"]["flow_run_id"])

    def _place(self, job: Json) -> tuple[bool, str, str]:
        metadata = job["metadata"]
        return metadata["uid"] in self._last, metadata["creationTimestamp"], metadata["name"]

    def _suspend(self, job: Json, suspend: bool) -> None:
        try:
            self._driver.ask("PATCH", f"jobs/{job['metadata']['name']}", {"spec": {"suspend": suspend}})
        except LookupError:  # it went meanwhile
            return


def _suspended(thing: Json) -> list[Json]:
    """As Kueue's own webhook does."""
    if thing["kind"] != "Job" or LABEL not in (thing["metadata"].get("labels") or {}):
        return []
    return [{"op": "add", "path": "/spec/suspend", "value": True}]


def _over(job: Json) -> bool:
    conditions: list[dict[str, Any]] = job.get("status", {}).get("conditions") or []
    done = {"Complete", "Failed"}
    return "deletionTimestamp" in job["metadata"] or any(
        one["type"] in done and one["status"] == "True" for one in conditions
    )
