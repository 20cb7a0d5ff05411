"""Fake runners for pods that are never scheduled: they claim and report, each with the token of its attempt."""

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
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.value import Value
from tests.cloud.k8s import NamespaceAdmin

#: A Job whose pod no scheduler handles.
UNSCHEDULED_JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "spec": {"template": {"spec": {"schedulerName": "nobody", "containers": [{"name": "flow"}]}}},
}


class FakeRunners:
    """Plays the runner of each Job of a namespace.

    Args:
        admin: client of the namespace.
        url: of the records' server.
        flow: returns the result for the parameters.
        excluded: ids of runs that have a real runner.
    """

    def __init__(
        self, admin: NamespaceAdmin, url: str, flow: Callable[..., Any], *, excluded: Collection[str] = ()
    ) -> None:
        self._admin = admin
        self._records = open_redis(url)
        self._flow = flow
        self.completed = set(excluded)  #: ids of completed and excluded runs

    def close(self) -> None:
        """Close the connection."""
        self._records.close()

    def run_new(self) -> int:
        """Run the flows of new Jobs; return the number of completed and excluded runs."""
        jobs = {job["metadata"]["name"]: job for job in self._admin.list("jobs")}
        for secret in self._admin.list("secrets", "flow_run_id"):
            run_id, name = secret["metadata"]["labels"]["flow_run_id"], secret["metadata"]["name"]
            if run_id not in self.completed and name in jobs:
                self.completed.add(run_id)
                self._run(jobs[name], secret)
        return len(self.completed)

    def _run(self, job: dict[str, Any], secret: dict[str, Any]) -> None:
        container = job["spec"]["template"]["spec"]["containers"][0]
        variables = {**plain_variables(container), **secret_variables(secret)}
        variables.pop("DISPATCHER__RUN__SECRETS_FILE")
        assignment = Assignment.take(variables, nonce="fake-runner")
        record = claim(self._records, assignment)
        assert record is not None, f"attempt {assignment.attempt} of run {assignment.run_id} is closed"
        result = json.dumps(self._flow(**json.loads(record.spec.parameters.inline or "{}")))
        digest = hashlib.sha256(result.encode()).hexdigest()
        outcome = Outcome(result=Value(codec="json", inline=result, digest=digest, size=len(result)))
        report = Report(run_id=assignment.run_id, attempt=assignment.attempt, kind=ReportKind.EXITED, outcome=outcome)
        self._records.inbox.report(assignment.shard, report.to_entry(assignment.token))


def plain_variables(container: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a container whose values are in its spec."""
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def secret_variables(secret: dict[str, Any]) -> dict[str, str]:
    """Return the variables that a runner reads from its Job's Secret."""
    variables: dict[str, str] = json.loads(base64.b64decode(secret["data"]["variables.json"]))
    return variables
