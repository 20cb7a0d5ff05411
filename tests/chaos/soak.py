"""Soak test: workers, clients and a subscriber under fault injection, then a check of everything that they recorded.

``python -m tests.chaos.soak --runs 500 --seed 1`` plays one and says what was found. Each process of it is real, and so
are the server, the workers' and the clients' way to it (a proxy each), and every fault. What is written stays in one
folder, which is named where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dispatcher.errors import ServerUnavailable
from dispatcher.records.query import Query
from dispatcher.records.redis import open_redis
from dispatcher.runs import indexes
from tests.chaos import checker, history, subscriber
from tests.chaos.call_log import calls_in
from tests.chaos.conftest import ChaosServer
from tests.chaos.fault_injector import Fault, FaultInjector, Targets
from tests.chaos.flows import read_marks
from tests.chaos.history import End, History
from tests.chaos.proxy import Proxy
from tests.chaos.report import TAKEN_OVER, Report, recoveries, takeovers
from tests.chaos.restarting_process import RestartingProcess
from tests.chaos.soak_client import HEALED, Plan
from tests.chaos.worker_group import WorkerGroup
from tests.conftest import PYTHON
from tests.integration.workers import KEYS, ROOT, Bench
from tests.waiting import wait_until

NAME = "soak"

#: The password of the server: it must be nowhere to be read.
CANARY = f"canary-{secrets.token_hex(12)}"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a soak. ``pause`` is the mean, in seconds, between two submits of one client."""

    runs: int
    seed: int
    workers: int = 3
    clients: int = 4
    pause: float = 0.5
    settle: float = 120.0


class Soak:
    """One soak in one folder."""

    def __init__(self, size: Size, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self._size = size
        self._folder = folder
        self._say = say
        self._service = folder / "service"
        self._db = folder / "subscriber.db"
        self._ends: dict[str, End] = {}
        for directory in (self._service, folder / "server"):
            directory.mkdir()

    def play(self) -> Report:
        """From the first worker to the verdict."""
        begun = time.monotonic()
        with ExitStack() as stack:
            server = ChaosServer(self._folder / "server", password=CANARY)
            stack.callback(server.kill)
            server.start()
            self._bench = Bench(server.url)
            stack.callback(self._bench.close)
            ways = [stack.enter_context(Proxy("127.0.0.1", server.port)) for _ in range(2)]
            urls = [way.url().replace("//", f"//:{CANARY}@") for way in ways]
            options: dict[str, Any] = {"backends": ["local", "remote", "fake"]}
            group = WorkerGroup(urls[0], self._folder, count=self._size.workers, **options)
            stack.enter_context(group)
            stack.callback(self._empty_service)
            environ = self._environ(urls[1])
            command = [PYTHON, "-m", "tests.chaos.subscriber", str(self._db), NAME]
            listener = RestartingProcess(command, environ, self._folder / "subscriber.log")
            stack.callback(listener.stop)
            wait_until(lambda: subscriber.is_subscribed(self._db), "the subscription", timeout=60)
            targets = Targets(
                server=server, url=server.url, group=group, proxies=ways, subscriber=listener, service=self._service
            )
            injector = FaultInjector(targets, self._folder / "faults.jsonl", seed=self._size.seed)
            clients = self._start_clients(environ, stack)
            before = self._storm(injector, clients)
            left = self._settle(clients)
            result = self._history(before)
            stack.pop_all().close()  # what is still running ends before its output is judged
        server.start()
        try:
            return self._report(result, injector, group, left=left, url=server.url, begun=begun)
        finally:
            server.kill()

    def _environ(self, url: str) -> dict[str, str]:
        return {
            **os.environ,
            "DISPATCHER__URL": url,
            "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore::UserWarning",  # no live worker serves the queue: so it is meant to be
        }

    def _start_clients(self, environ: Mapping[str, str], stack: ExitStack) -> list[subprocess.Popen[bytes]]:
        started = []
        share, rest = divmod(self._size.runs, self._size.clients)
        for n in range(self._size.clients):
            plan = Plan(
                name=f"c{n}",
                folder=str(self._folder),
                seed=self._size.seed,
                count=share + (n < rest),
                pause=self._size.pause,
                within=self._size.settle,
            )
            command = [PYTHON, "-m", "tests.chaos.soak_client", json.dumps(asdict(plan))]
            with (self._folder / f"client-{plan.name}.log").open("wb") as log:
                client = subprocess.Popen(command, stdout=log, stderr=log, env=dict(environ), cwd=ROOT)
            stack.callback(lambda client=client: (client.kill(), client.wait()))  # type: ignore[misc]
            started.append(client)
        return started

    def _storm(self, injector: FaultInjector, clients: Sequence[subprocess.Popen[bytes]]) -> frozenset[str]:
        """Faults until all clients have submitted; the runs that are there then."""
        injector.start()
        reported_at = time.monotonic()
        try:
            while len(list(self._folder.glob("submitted-*"))) < len(clients):
                assert all(client.poll() is None for client in clients), f"a client ended early: see {self._folder}"
                self._look()
                if time.monotonic() - reported_at > 10:
                    reported_at = time.monotonic()
                    done = len(self._ends)
                    self._say(f"{done} of {self._size.runs} runs have ended; {len(injector.faults)} faults")
                time.sleep(0.5)
        finally:
            injector.stop()
        before = frozenset(record.id for record in self._bench.records.runs.find(Query(), limit=None))
        (self._folder / HEALED).touch()
        return before

    def _look(self) -> None:
        """Note how each run has ended, as soon as it has."""
        asked = {call.run for call in calls_in(self._folder) if call.run} - self._ends.keys()
        with suppress(ServerUnavailable):
            for record in self._bench.records.runs.get_many(sorted(asked)):
                if record is not None and record.terminal:
                    self._ends[record.id] = End.of(record)

    def _settle(self, clients: Sequence[subprocess.Popen[bytes]]) -> list[str]:
        """Wait until clients, service and subscriber are done; what wasn't in time."""
        end = time.monotonic() + self._size.settle
        left = []
        for client in clients:
            while client.poll() is None and time.monotonic() < end:
                self._look()
                time.sleep(0.3)
            if client.poll() != 0:
                left.append(f"a client had not seen all its runs end within {self._size.settle:g} s")
        records = self._bench.records
        runs = records.runs.count(indexes.ALL)
        for done, condition in (
            (lambda: not records.runs.count(indexes.teardown("fake")), "the teardown of all containers"),
            (lambda: not list(self._service.glob("*.json")), "an empty service"),
            (lambda: subscriber.finals(self._db) >= runs, "the subscriber hearing of all ends"),
        ):
            try:
                wait_until(done, condition, timeout=60, every=0.2)
            except AssertionError as late:
                left.append(str(late))
        return left

    def _history(self, before: frozenset[str]) -> History:
        records = {record.id: record for record in self._bench.records.runs.find(Query(), limit=None)}
        return History(
            calls=list(calls_in(self._folder)),
            records=records,
            events={run_id: self._bench.records.events.of(run_id)[0] for run_id in records},
            results={
                run_id: checker.result_of(self._bench.records, self._bench.keys, record)
                for run_id, record in records.items()
            },
            marks=read_marks(self._folder),
            before=before,
            ends=self._ends,
            received=subscriber.received_by(self._db),
        )

    def _report(
        self, result: History, injector: FaultInjector, group: WorkerGroup, *, left: list[str], url: str, begun: float
    ) -> Report:
        wrong = [*left, *history.violations(result)]
        records = open_redis(url)
        try:
            wrong += checker.wrong_in_service(self._service, records, list(result.records))
        finally:
            records.close()
        (self._folder / "workers.log").write_text(group.output)
        wrong += checker.leaks(url, self._secrets(result), self._written())
        wrong += [f"after retention: {key}" for key in checker.left_after_retention(url)]
        counts = history.counted(result) | {
            "faults": len(injector.faults),
            **{f"faults, {kind}": len(values) for kind, values in sorted(_by_kind(injector.faults).items())},
            "workers that ended": group.deaths,
            "doorbells emptied out of queues": injector.emptied,
            "duplicate doorbells absorbed": injector.doubled,
            "doorbells rung again": group.output.count("its doorbell was lost; rung again"),
            "dead workers found": group.output.count("is dead: no heartbeat for"),
        }
        return Report(
            seed=self._size.seed,
            seconds=time.monotonic() - begun,
            folder=str(self._folder),
            violations=wrong,
            counts=counts,
            recoveries=recoveries(injector.faults, result.records, result.events)
            | {TAKEN_OVER: takeovers(injector.faults, result.events)},
        )

    def _secrets(self, result: History) -> list[str]:
        """Return secrets that must not be readable anywhere; of the keys of containers, a few are enough."""
        contained = [record.id for record in result.records.values() if record.spec.route.backend == "fake"]
        return [
            CANARY,
            *KEYS.values(),
            *(self._bench.keys.attempt_seal(run_id, 1).key.hex() for run_id in contained[:50]),
        ]

    def _written(self) -> list[Path]:
        """Everything that was written, but the server's own data, whose values are looked at through the server."""
        return [file for file in self._folder.rglob("*") if file.is_file() and file.parent.name != "appendonlydir"]

    def _empty_service(self) -> None:
        for file in self._service.glob("*.json"):
            file.with_suffix(".deleted").touch()


def _by_kind(faults: Sequence[Fault]) -> dict[str, list[Fault]]:
    faults_by_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        faults_by_kind[fault.kind].append(fault)
    return faults_by_kind


def play(size: Size, say: Callable[[str], None] = lambda line: None) -> Report:
    """Play a soak in a folder of its own, which stays where something was wrong."""
    folder = Path(tempfile.mkdtemp(prefix="dsp-soak-"))
    say(f"soak of {size.runs} runs, seed {size.seed}, in {folder}")
    report = Soak(size, folder, say).play()
    if not report.violations:
        shutil.rmtree(folder)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Play one soak.")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--pause", type=float, default=0.5)
    asked = parser.parse_args()

    def write(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    report = play(Size(runs=asked.runs, seed=asked.seed, pause=asked.pause), write)
    write("\n".join(report.lines()))
    sys.exit(1 if report.violations else 0)
