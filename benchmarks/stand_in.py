"""Stands in for the runners in pods that kwok plays: ``python -m benchmarks.stand_in NAMESPACE``.

For each pod that runs it reads what its runner would read (the container's variables, the Secret that it mounts),
claims the attempt by the runner's own function, and reports by its own token: a sign of life every ten seconds, and
the end once told so. Then the pod ends too, as the container of a runner does. A pod that ends by itself is silent from
then on. :func:`stood_in` starts it, and speaks with it over its standard input and output.
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

from benchmarks.cluster import PODS, SECRETS, Access, Bare, Json, log
from dispatcher.records.base import Records
from dispatcher.records.redis import open_redis
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.claim import claim
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs.record import Outcome

BEAT = 10.0  #: seconds between two signs of life of a runner

PATIENCE = 900.0  #: seconds for all of them to begin

#: Threads that end pods.
ENDERS = 4


@dataclass(frozen=True)
class Runner:
    """One that was claimed."""

    pod: str
    mine: Assignment

    def report(self, records: Records, about: ReportKind) -> None:
        """As the runner does."""
        mine = self.mine
        report = Report(run_id=mine.run_id, attempt=mine.attempt, kind=about, outcome=Outcome())
        records.inbox.report(mine.shard, report.to_entry(mine.token))


class StoodIn:
    """The process of a stand-in, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def all_of(self, count: int) -> None:
        """Wait until so many runners have claimed their attempts."""
        self._tell(f"expect {count}")
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0] or not self._process.stdout.readline():
            raise TimeoutError(f"{count} runs didn't come to life within {PATIENCE:g} s")

    def finish(self) -> None:
        """Let all of them come to their end."""
        self._tell("finish")

    def _tell(self, line: str) -> None:
        print(line, file=self._process.stdin, flush=True)


@contextlib.contextmanager
def stood_in(namespace: str) -> Iterator[StoodIn]:
    """Runners for all pods of a namespace that start from now on."""
    command = [sys.executable, "-P", "-m", "benchmarks.stand_in", namespace]
    with log().open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True, bufsize=1
        )
    try:
        yield StoodIn(process)
    finally:
        process.kill()
        process.wait()


class StandIn:
    """All runners of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._access = Access.read()
        self._secrets: dict[str, Json] = {}
        self._events: queue.SimpleQueue[tuple[str, Json]] = queue.SimpleQueue()
        self._waiting: dict[str, Json] = {}  # pods whose Secret hasn't been heard of
        self._live: dict[str, Runner] = {}
        self._records: Records | None = None
        self._claimed = 0
        self._expected = sys.maxsize

    def run(self) -> None:
        """Until the standard input ends."""
        for kind, path in (("secret", SECRETS), ("pod", PODS)):
            threading.Thread(target=self._listen, args=(kind, path), daemon=True).start()
        threading.Thread(target=self._hear, daemon=True).start()
        beats: list[tuple[float, str]] = []
        while True:
            pause = max(0.0, beats[0][0] - time.monotonic()) if beats else 1.0
            kind, thing = self._next(min(pause, 1.0))
            if kind == "end":
                return
            if kind == "finish":
                self._finish()
            if kind == "expect":
                self._expected = thing["count"]
            for pod in self._act(kind, thing):
                heapq.heappush(beats, (time.monotonic() + random.uniform(0, BEAT), pod))
            if self._claimed >= self._expected:
                self._expected = sys.maxsize
                print("all", flush=True)  # noqa: T201
            while beats and beats[0][0] <= time.monotonic():
                due, pod = heapq.heappop(beats)
                if self._records is not None and pod in self._live:
                    self._live[pod].report(self._records, ReportKind.ALIVE)
                    heapq.heappush(beats, (due + BEAT, pod))

    def _next(self, timeout: float) -> tuple[str, Json]:
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return "", {}

    def _listen(self, kind: str, path: str) -> None:
        place = path.format(self._namespace)
        version = Bare(self._access).version(place)
        while True:  # the namespace is new: nothing came before
            for _, line in Bare(self._access).watch(place, version):
                event = json.loads(line)
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in {"ADDED", "MODIFIED"}:
                    self._events.put((kind, event["object"]))

    def _hear(self) -> None:
        for line in sys.stdin:
            word, _, count = line.strip().partition(" ")
            self._events.put((word, {"count": int(count or 0)}))
        self._events.put(("end", {}))

    def _act(self, kind: str, thing: Json) -> list[str]:
        """Keep what was heard; the pods whose attempts were claimed."""
        if kind == "secret" and "variables.json" in thing.get("data", {}):
            name = thing["metadata"]["name"]
            self._secrets[name] = json.loads(base64.b64decode(thing["data"]["variables.json"]))
            pod = self._waiting.pop(name, None)
            return [] if pod is None else self._begin(pod)
        if kind == "pod" and thing["status"].get("phase") == "Running":
            return self._begin(thing)
        if kind == "pod":
            self._live.pop(thing["metadata"]["name"], None)
        return []

    def _begin(self, pod: Json) -> list[str]:
        name = pod["metadata"]["name"]
        if name in self._live or pod["metadata"].get("deletionTimestamp"):
            return []
        job = pod["metadata"]["labels"]["job-name"]
        if job not in self._secrets:
            self._waiting[job] = pod
            return []
        given = {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"] if "value" in one}
        given.pop("DISPATCHER__RUN__SECRETS_FILE")
        variables = {**given, **self._secrets.pop(job), "DISPATCHER__RUN__UID": pod["metadata"]["uid"]}
        mine = Assignment.take(variables, nonce=pod["metadata"]["uid"][:16])
        self._records = self._records or open_redis(mine.url)
        if claim(self._records, mine) is None:
            return []
        self._live[name] = Runner(name, mine)
        self._claimed += 1
        return [name]

    def _finish(self) -> None:
        """The runners report their end; then their pods end."""
        ending = list(self._live.values())
        for runner in ending:
            if self._records is not None:
                runner.report(self._records, ReportKind.EXITED)
            del self._live[runner.pod]
        for number in range(ENDERS):
            pods = [runner.pod for runner in ending[number::ENDERS]]
            threading.Thread(target=end, args=(self._access, self._namespace, pods, 0), daemon=True).start()


def end(access: Access, namespace: str, pods: Sequence[str], code: int, *, every: float = 0.0) -> None:
    """Let pods of kwok end with an exit code, ``every`` so many seconds one."""
    client = Bare(access)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": now, "finishedAt": now}
    container = {"name": "flow", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    status = {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [{**container, "state": {"terminated": ended}}],
    }
    for pod in pods:
        place = f"{PODS.format(namespace)}/{pod}/status"
        try:
            client.ask("PATCH", place, {"status": status}, "application/merge-patch+json")
        except RuntimeError as error:  # torn down meanwhile
            if " 404 " not in str(error):
                raise
        time.sleep(every)
    client.close()


if __name__ == "__main__":
    StandIn(sys.argv[1]).run()
