"""Runners of pods that no node takes: claims and reports as they would, each with its attempt's own token."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection
from typing import Any

from dispatcher.records.redis import open_redis
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.claim import claim
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs.record import Outcome, Value
from tests.cloud.place import Driver

#: A Job whose pod stays where it was made.
UNPLACED: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {"template": {"spec": {"schedulerName": "nobody", "containers": [{"name": "flow"}]}}},
}


class StandIns:
    """Plays the runner of each Job of a namespace.

    Args:
        driver: reads Jobs and Secrets.
        url: the records' server.
        flow: given the parameters, gives the result.
        besides: ids of runs that have a runner of their own.
    """

    def __init__(self, driver: Driver, url: str, flow: Callable[..., Any], *, besides: Collection[str] = ()) -> None:
        self._driver = driver
        self._records = open_redis(url)
        self._flow = flow
        self.played = set(besides)  #: run ids, with those that need no playing

    def close(self) -> None:
        """Close the connection."""
        self._records.close()

    def look(self) -> int:
        """Play what is new; how many were played in all."""
        jobs = {job["metadata"]["name"]: job for job in self._driver.list("jobs")}
        for secret in self._driver.list("secrets", "flow_run_id"):
            run_id, name = secret["metadata"]["labels"]["flow_run_id"], secret["metadata"]["name"]
            if run_id not in self.played and name in jobs:
                self.played.add(run_id)
                self._play(jobs[name], secret)
        return len(self.played)

    def _play(self, job: dict[str, Any], secret: dict[str, Any]) -> None:
        container = job["spec"]["template"]["spec"]["containers"][0]
        given = {**plain_variables(container), **secret_variables(secret)}
        given.pop("DISPATCHER__RUN__SECRETS_FILE")
        mine = Assignment.take(given, nonce="stand-in")
        record = claim(self._records, mine)
        assert record is not None, f"attempt {mine.attempt} of run {mine.run_id} is closed"
        found = json.dumps(self._flow(**json.loads(record.spec.parameters.inline or "{}")))
        digest = hashlib.sha256(found.encode()).hexdigest()
        outcome = Outcome(result=Value(codec="json", inline=found, digest=digest, size=len(found)))
        report = Report(run_id=mine.run_id, attempt=mine.attempt, kind=ReportKind.EXITED, outcome=outcome)
        self._records.inbox.report(mine.shard, report.to_entry(mine.token))


def plain_variables(container: dict[str, Any]) -> dict[str, str]:
    """Variables of a container that stand in its spec."""
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def secret_variables(secret: dict[str, Any]) -> dict[str, str]:
    """What its runner reads from a Job's Secret."""
    found: dict[str, str] = json.loads(base64.b64decode(secret["data"]["variables.json"]))
    return found
