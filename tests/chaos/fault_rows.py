"""The rows of the fault matrix that have tests; ``@pytest.mark.row(n)`` marks a test of row ``n``."""

from __future__ import annotations

from collections.abc import Mapping

ROWS: Mapping[int, str] = {
    1: "a worker is killed between taking a doorbell and the claim",
    2: "a worker is killed after the claim, before the request is stored",
    3: "a worker is killed after the request is stored, before the create",
    4: "a worker is killed after the create, before it is recorded",
    5: "a worker is killed after the terminal write, before the acknowledgement",
    6: "workers are killed again and again",
    7: "SIGTERM with too short a grace period, then SIGKILL",
    8: "a worker is frozen for longer than its lease, then resumes",
    9: "a doorbell is delivered twice at once",
    10: "a doorbell is delivered again after the run's end, and a day later",
    11: "a flow kills its process each time",
    12: "the server is killed and restarted: idle, busy, while submits come in",
    13: "the server loses its last second",
    14: "the server is unavailable while flows run",
    15: "half-open connections, on the worker's and on the client's side",
    16: "the reply of each command is lost",
    17: "all connections are killed again and again",
    18: "the memory limit is reached, and lifted later",
    19: "scripts flushed, a consumer group deleted, a stream trimmed",
    20: "failover to a replica that misses the last writes",
    21: "a worker's clock is wrong, or jumps",
    22: "a Kubernetes Job is created, and the reply is lost",
    23: "the API server refuses a create: the name is taken by another Job or by ours being deleted, 401, 429, 500",
    24: "a watch is silent, breaks off, is too old (410), sends bookmarks or garbage, or loses an event",
    25: "the API server is unavailable, or refuses",
    26: "a pod ends, or doesn't start, in each way of the failure catalogue",
    27: "a second pod of an attempt; a pod deleted while it runs; a node or its kubelet lost, and back",
    31: "a flow's process dies at its start, in the middle, after its result; huge logs, huge results",
    32: "a cancel at every state, twice, racing the end",
    33: "a subscriber crashes before and after its effect, is absent, has two consumers",
    34: "forged, replayed, expired, misrouted messages",
}
