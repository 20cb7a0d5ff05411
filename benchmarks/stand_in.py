"""Simulate the runners in pods that kwok simulates: ``python -m benchmarks.stand_in NAMESPACE``.

For each running pod this reads what its runner would read (the container's variables, the Secret that it mounts),
claims the attempt by the runner's own function, and reports by its own token: a heartbeat every ten seconds, and the
end on demand. Then the pod ends too, as a runner's container does. A pod that ends by itself sends nothing any more.
:func:`stand_in_runners` starts this process, and controls it over its standard input and output.
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import json
import queue
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.cluster import PODS, SECRETS, BareClient, ClusterAccess, Json, log
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.claim import claim
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs.outcome import Outcome

HEARTBEAT_INTERVAL = 10.0  #: seconds between two heartbeats of a runner

START_TIMEOUT = 900.0  #: seconds for all runs to start

#: Number of threads that end pods.
ENDER_THREADS = 4


@dataclass(frozen=True)
class StandInRunner:
    """The simulated runner of a pod, whose attempt is claimed."""

    pod: str
    assignment: Assignment

    def report(self, records: Records, kind: ReportKind) -> None:
        """Send a report, as the runner does."""
        assignment = self.assignment
        report = Report(run_id=assignment.run_id, attempt=assignment.attempt, kind=kind, outcome=Outcome())
        records.inbox.report(assignment.shard, report.to_entry(assignment.token))


class StandInProcess:
    """The handle of the process that simulates runners."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def wait_for(self, count: int) -> None:
        """Wait until ``count`` runners have claimed their attempts."""
        self._send(f"expect {count}")
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], START_TIMEOUT)[0] or not self._process.stdout.readline():
            raise TimeoutError(f"{count} runs didn't start within {START_TIMEOUT:g} s")

    def finish(self) -> None:
        """End all runners."""
        self._send("finish")

    def _send(self, line: str) -> None:
        print(line, file=self._process.stdin, flush=True)


@contextlib.contextmanager
def stand_in_runners(namespace: str) -> Iterator[StandInProcess]:
    """Simulate the runners of all pods of a namespace that start from now on."""
    command = [sys.executable, "-P", "-m", "benchmarks.stand_in", namespace]
    with log().open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True, bufsize=1
        )
    try:
        yield StandInProcess(process)
    finally:
        process.kill()
        process.wait()


class StandInRunners:
    """All simulated runners of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._access = ClusterAccess.read()
        self._secrets: dict[str, Json] = {}
        self._events: queue.SimpleQueue[tuple[str, Json]] = queue.SimpleQueue()
        self._waiting: dict[str, Json] = {}  # pods whose Secret hasn't been seen yet
        self._live: dict[str, StandInRunner] = {}
        self._records: Records | None = None
        self._claimed = 0
        self._expected = sys.maxsize

    def run(self) -> None:
        """Simulate runners until the standard input ends."""
        for kind, path in (("secret", SECRETS), ("pod", PODS)):
            threading.Thread(target=self._watch, args=(kind, path), daemon=True).start()
        threading.Thread(target=self._read_commands, daemon=True).start()
        beats: list[tuple[float, str]] = []
        while True:
            pause = max(0.0, beats[0][0] - time.monotonic()) if beats else 1.0
            kind, payload = self._next_event(min(pause, 1.0))
            if kind == "end":
                return
            if kind == "finish":
                self._finish()
            if kind == "expect":
                self._expected = payload["count"]
            for pod in self._handle_event(kind, payload):
                heapq.heappush(beats, (time.monotonic() + random.uniform(0, HEARTBEAT_INTERVAL), pod))
            if self._claimed >= self._expected:
                self._expected = sys.maxsize
                print("all", flush=True)  # noqa: T201
            while beats and beats[0][0] <= time.monotonic():
                due, pod = heapq.heappop(beats)
                if self._records is not None and pod in self._live:
                    self._live[pod].report(self._records, ReportKind.ALIVE)
                    heapq.heappush(beats, (due + HEARTBEAT_INTERVAL, pod))

    def _next_event(self, timeout: float) -> tuple[str, Json]:
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return "", {}

    def _watch(self, kind: str, path: str) -> None:
        path = path.format(self._namespace)
        version = BareClient(self._access).version(path)
        while True:  # without a list first, because the namespace is new
            for _, line in BareClient(self._access).watch(path, version):
                event = json.loads(line)
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in {"ADDED", "MODIFIED"}:
                    self._events.put((kind, event["object"]))

    def _read_commands(self) -> None:
        for line in sys.stdin:
            word, _, count = line.strip().partition(" ")
            self._events.put((word, {"count": int(count or 0)}))
        self._events.put(("end", {}))

    def _handle_event(self, kind: str, payload: Json) -> list[str]:
        """Handle a changed object. Return the pods whose attempts were claimed."""
        if kind == "secret" and "variables.json" in payload.get("data", {}):
            name = payload["metadata"]["name"]
            self._secrets[name] = json.loads(base64.b64decode(payload["data"]["variables.json"]))
            pod = self._waiting.pop(name, None)
            return [] if pod is None else self._start_runner(pod)
        if kind == "pod" and payload["status"].get("phase") == "Running":
            return self._start_runner(payload)
        if kind == "pod":
            self._live.pop(payload["metadata"]["name"], None)
        return []

    def _start_runner(self, pod: Json) -> list[str]:
        name = pod["metadata"]["name"]
        if name in self._live or pod["metadata"].get("deletionTimestamp"):
            return []
        job = pod["metadata"]["labels"]["job-name"]
        if job not in self._secrets:
            self._waiting[job] = pod
            return []
        env = {item["name"]: item["value"] for item in pod["spec"]["containers"][0]["env"] if "value" in item}
        env.pop("DISPATCHER__RUN__SECRETS_FILE")
        variables = {**env, **self._secrets.pop(job), "DISPATCHER__RUN__UID": pod["metadata"]["uid"]}
        assignment = Assignment.take(variables, nonce=pod["metadata"]["uid"][:16])
        self._records = self._records or open_redis(assignment.url)
        if claim(self._records, assignment) is None:
            return []
        self._live[name] = StandInRunner(name, assignment)
        self._claimed += 1
        return [name]

    def _finish(self) -> None:
        """Report the end of all runners, then end their pods."""
        ending = list(self._live.values())
        for runner in ending:
            if self._records is not None:
                runner.report(self._records, ReportKind.EXITED)
            del self._live[runner.pod]
        for number in range(ENDER_THREADS):
            pods = [runner.pod for runner in ending[number::ENDER_THREADS]]
            threading.Thread(target=end_pods, args=(self._access, self._namespace, pods, 0), daemon=True).start()


def end_pods(access: ClusterAccess, namespace: str, pods: Sequence[str], code: int, *, pause: float = 0.0) -> None:
    """End simulated pods with an exit code, with a pause of so many seconds after each."""
    client = BareClient(access)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": now, "finishedAt": now}
    container = {"name": "flow", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    status = {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [{**container, "state": {"terminated": ended}}],
    }
    for pod in pods:
        path = f"{PODS.format(namespace)}/{pod}/status"
        try:
            client.request("PATCH", path, {"status": status}, "application/merge-patch+json")
        except RuntimeError as error:  # deleted meanwhile
            if " 404 " not in str(error):
                raise
        time.sleep(pause)
    client.close()


if __name__ == "__main__":
    StandInRunners(sys.argv[1]).run()
