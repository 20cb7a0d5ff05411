"""Timeline of an attempt, from its objects' own timestamps."""

from __future__ import annotations

from typing import Any

from backends.kubernetes.reasons import Pod
from backends.kubernetes.timestamps import age, times
from dispatcher.runs.infrastructure import STOP_DUE

JOB = {"metadata": {"uid": "j", "creationTimestamp": "2025-01-01T00:00:00Z"}}
CREATED = 1735689600.0


def pod(state: dict[str, Any]) -> Pod:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2025-01-01T00:00:01Z"}
    statuses = [{"name": "sidecar", "state": {"running": {"startedAt": "2025-01-01T00:00:09Z"}}}]
    status = {"conditions": [scheduled], "containerStatuses": [*statuses, {"name": "flow", "state": state}]}
    return Pod(object={"metadata": {"uid": "p"}, "status": status})


def test_moments_of_all_objects() -> None:
    pulled = {"reason": "Pulled", "involvedObject": {"uid": "p"}, "lastTimestamp": "2025-01-01T00:00:03Z"}
    running = pod({"running": {"startedAt": "2025-01-01T00:00:04Z"}})
    moments = times(JOB, [running], [pulled], "flow")
    assert {name: at - CREATED for name, at in moments.items()} == {
        "created": 0, "scheduled": 1, "pulled": 3, "started": 4,
    }  # fmt: skip
    ended = {"startedAt": "2025-01-01T00:00:04Z", "finishedAt": "2025-01-01T00:00:07Z"}
    moments = times(JOB, [pod({"terminated": ended})], [], "flow")
    assert {name: at - CREATED for name, at in moments.items()} == {
        "created": 0, "scheduled": 1, "started": 4, "finished": 7,
    }  # fmt: skip


def test_a_flow_that_ignores_its_deletion_is_killed_after_two_thirds_of_the_grace() -> None:
    live = pod({"running": {"startedAt": "2025-01-01T00:00:04Z"}})
    live.object["metadata"].update(deletionTimestamp="2025-01-01T00:02:00Z", deletionGracePeriodSeconds=105)
    assert times(JOB, [live], [], "flow")[STOP_DUE] == CREATED + 120 - 35
    over = pod({"terminated": {"finishedAt": "2025-01-01T00:00:07Z"}})
    over.object["metadata"].update(live.object["metadata"])
    assert STOP_DUE not in times(JOB, [over], [], "flow")


def test_moments_that_no_object_records_are_missing() -> None:
    assert times(None, [], [], "flow") == {}
    assert times({"metadata": {}}, [pod({"running": {"startedAt": None}})], [], "flow") == {"scheduled": CREATED + 1}
    assert age({"metadata": {}}, CREATED) == 0
    assert age(JOB, CREATED + 5) == 5
