"""Ends of a running pod that others have caused: what is said of each."""

from __future__ import annotations

from backends.kubernetes.cluster.trim import trim
from tests.unit.kubernetes.test_reasons import JOB, observed, pod


def test_who_deleted_a_pod_while_it_ran_is_told_apart() -> None:
    deleted = pod({"running": {}})
    deleted["metadata"] |= {"deletionTimestamp": "2026-01-01T00:01:00Z"}
    going = {**JOB, "metadata": {**JOB["metadata"], "deletionTimestamp": "2026-01-01T00:01:00Z"}}
    none_wanted = trim("jobs", {**JOB, "spec": {"parallelism": 0}})
    for job, text in (
        (JOB, "its pod was deleted while it ran"),
        (going, "its Job was deleted while it ran"),
        (None, "its Job was deleted while it ran"),
        (none_wanted, "its Job's spec.parallelism was set to 0 while it ran, which deletes its pod"),
    ):
        assert observed(deleted, job=job).message == text
        assert observed(pod({"running": {}}), job=job, gone=True).message == text
    orphan = {**deleted, "metadata": {**deleted["metadata"], "orphaned": True}}
    assert observed(orphan, job=None).message == "its pod was deleted while it ran"
    assert "spec.parallelism was set to 0" in observed(job=none_wanted, after=30).message
    assert "parallelism" not in trim("jobs", {**JOB, "spec": {"parallelism": 1}})["spec"]


def test_a_job_that_was_suspended_while_it_ran() -> None:
    by_hand = {**JOB, "spec": {"suspend": True, "suspendedBy": "kubectl-patch"}}
    gone = pod({"running": {}})
    text = "its Job flow-1 was suspended while it ran, not by a quota queue but by kubectl-patch"
    assert observed(gone, job=by_hand).message == text
    assert "lets it go on" in observed(pod(), job=by_hand).message, "its flow hasn't started"
    queued = {**JOB, "spec": {"suspend": True}}
    assert observed(gone, job=queued).message == "a quota queue suspended its Job while it ran"
