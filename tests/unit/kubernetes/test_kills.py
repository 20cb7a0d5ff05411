"""Containers that a signal ended: what the cluster tells about who sent it."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Phase
from dispatcher import Cause
from dispatcher.runner.container.termination_message import TerminationMessage
from dispatcher.runs.outcome import Outcome
from tests.unit.kubernetes.test_reasons import JOB, ended, event, observed, pod, summary

TOLD_TO_STOP = TerminationMessage.of(
    Outcome(cause=Cause.PREEMPTED, reason="PreemptInterrupt", message="told to stop"), run="r", attempt=1
).to_json()


@pytest.mark.parametrize(
    ("reason", "message", "path"),
    [
        ("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500", "spec.containers{flow}"),
        ("Unhealthy", "Startup probe failed: no answer", "spec.containers{flow}"),
        ("FailedPostStartHook", "PostStartHook failed", "spec.containers{flow}"),
    ],
)
@pytest.mark.parametrize("state", [ended(143, message=TOLD_TO_STOP), ended(143), ended(137)])
def test_row_a_container_that_its_kubelet_stopped_is_killed_with_the_words_of_the_event(
    reason: str, message: str, path: str, state: dict[str, Any]
) -> None:
    stopped = event(reason, message)
    stopped["involvedObject"]["fieldPath"] = path
    observation = observed(pod(state, phase="Failed"), events=[stopped])
    assert (*summary(observation), observation.tentative) == (Phase.ENDED, Cause.KILLED, False)
    assert (observation.reason, observation.message) == (reason, message)


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ("Liveness probe failed: of a side-car", "spec.containers{mesh}"),
        ("Readiness probe failed: not yet", "spec.containers{flow}"),
    ],
)
def test_row_sigterm_without_evidence_is_killed_once_an_event_would_have_come(message: str, path: str) -> None:
    other = event("Unhealthy", message)
    other["involvedObject"]["fieldPath"] = path
    stopped = pod(ended(143, message=TOLD_TO_STOP), phase="Failed")
    for after, tentative in ((0, True), (4, True), (5, False)):
        observation = observed(stopped, events=[other], after=after)
        assert (*summary(observation), observation.tentative) == (Phase.ENDED, Cause.KILLED, tentative)
        assert observation.reason == "SIGTERM"
    living = observed(pod(ended(143, message=TOLD_TO_STOP)), after=100)
    assert living.tentative, "a kubelet says that it evicted a pod once all its containers have ended"


@pytest.mark.parametrize("reason", ["NodeShutdown", "Terminated", "Preempting"])
def test_row_sigterm_by_the_node_is_preempted(reason: str) -> None:
    observation = observed(pod(ended(143, message=TOLD_TO_STOP), phase="Failed", reason=reason))
    assert (*summary(observation), observation.tentative) == (Phase.ENDED, Cause.PREEMPTED, False)


def test_sigterm_of_a_deleted_pod_is_killed_rather_than_preempted() -> None:
    ended_pod = pod(ended(143, message=TOLD_TO_STOP))
    ended_pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    observation = observed(ended_pod)
    assert (*summary(observation), observation.tentative) == (Phase.ENDED, Cause.KILLED, True)
    assert observation.reason == "deleted"
    late = {"conditions": [{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}]}
    assert summary(observed(ended_pod, job={**JOB, "status": late})) == (Phase.ENDED, Cause.DEADLINE)
