"""The runner of a container as a process, which a test starts in place of a backend, and its reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from backends.fake import FakeEnvironment
from dispatcher.flows.flow import Flow
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runner.container.termination_message import TerminationMessage
from dispatcher.runner.settings import RunnerSettings
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from dispatcher.serialization.signing_keys import spec_digest
from tests.conftest import PYTHON
from tests.integration.workers import ROOT, Bench, children_of, is_alive
from tests.waiting import wait_until

SHARD = "fake/0"


class AssignedRun:
    """A run whose infrastructure was just created, and the assignment of its container."""

    def __init__(self, bench: Bench, directory: Path, flow: Flow[..., Any] | str, **options: Any) -> None:
        """Submit a flow; or take the run of this id, which a program has submitted to the fake backend."""
        self.bench = bench
        self.directory = directory
        if isinstance(flow, str):
            self.run_id = flow
        else:
            of_place = {name: options.pop(name) for name in ("on_exit", "on_start", "workers") if name in options}
            environment = FakeEnvironment(directory, scheduler="workers" in of_place or None, **of_place)
            self.run_id = bench.submit(flow, options.pop("parameters", None), environment=environment, **options)
        record = self._step(partial(transitions.claim, owner="somebody"))
        self.epoch = record.epoch
        request = {"shard": SHARD, "epoch": record.epoch, "body": {}}
        self._step(partial(transitions.intend, epoch=record.epoch, request=request))
        self._step(partial(transitions.created, epoch=record.epoch, handle={"name": "x"}, owner=SHARD))
        self.token = bench.keys.token(self.run_id, 1, self.epoch)
        self.secrets = {
            "DISPATCHER__URL": bench.settings.url or "",
            "DISPATCHER__RUN__SEAL": bench.keys.attempt_seal(self.run_id, 1).key.hex(),
            "DISPATCHER__RUN__SPEC": spec_digest(record),
            "DISPATCHER__RUN__TOKEN": self.token,
        }
        self.variables = {
            "DISPATCHER__RUN__ID": self.run_id,
            "DISPATCHER__RUN__ATTEMPT": "1",
            "DISPATCHER__RUN__SHARD": SHARD,
            **RunnerSettings.of(bench.settings).variables(),
        }

    def _step(self, step: Any) -> Record:
        return self.bench.records.runs.update(self.run_id, step)

    @property
    def record(self) -> Record:
        """The record after its supervisor has read the claims."""
        for _, entry in self.bench.records.inbox.read(SHARD):
            report = Report.from_entry(entry, self.token)
            if report.kind is ReportKind.CLAIMED and self.bench.record(self.run_id).state is State.PENDING:
                at = float(entry["time"])
                self._step(partial(transitions.claim_attempt, attempt=1, holder=report.holder, at=at))
        return self.bench.record(self.run_id)

    def reports(self) -> list[Report]:
        """Return the verified reports of the inbox."""
        entries = self.bench.records.inbox.read(SHARD)
        return [Report.from_entry(entry, self.token) for _, entry in entries]

    def report_kinds(self) -> list[ReportKind]:
        """Return the kinds of the reports other than the claim."""
        return [report.kind for report in self.reports() if report.kind is not ReportKind.CLAIMED]

    def report_of(self, kind: ReportKind) -> Report:
        """Return the only report of a kind."""
        (report,) = [report for report in self.reports() if report.kind is kind]
        return report

    def request_cancel(self) -> None:
        """Cancel the run, of which no worker takes notice."""
        assert self.record.holder
        self._step(transitions.request_cancel)

    def close(self) -> None:
        """End the run as a supervisor does that takes its container for lost."""
        assert self.record.holder
        lost = Outcome(cause=Cause.NODE_LOST, message="lost")
        self._step(partial(transitions.abandon, epoch=self.epoch, outcome=lost, here=False))

    def finish(self) -> None:
        """End the run as its supervisor does once the runner has exited."""
        outcome, record = self.report_of(ReportKind.EXITED).outcome, self.record
        assert record.holder
        self._step(partial(transitions.finish, epoch=record.epoch, outcome=outcome))


class RunnerProcess:
    """``python -m dispatcher.runner`` as a container would start it."""

    def __init__(
        self,
        assigned: AssignedRun,
        *,
        grace: float = 6.0,
        in_file: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.assigned = assigned
        name = f"runner-{time.monotonic_ns()}"
        self._log = assigned.directory / f"{name}.log"
        self._message = assigned.directory / f"{name}.message"
        secrets = assigned.secrets
        if in_file:
            file = assigned.directory / f"{name}.json"
            file.write_text(json.dumps(secrets))
            secrets = {"DISPATCHER__RUN__SECRETS_FILE": str(file)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [PYTHON, "-P", "-m", "dispatcher.runner"],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    **assigned.variables,
                    **secrets,
                    "DISPATCHER__RUN__GRACE": str(grace),
                    "DISPATCHER__RUN__LAST_WORDS": str(self._message),
                    "PYTHONPATH": str(ROOT),
                    **(variables or {}),
                },
                process_group=0,
            )

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._log.read_text(errors="replace")

    @property
    def message(self) -> TerminationMessage | None:
        """Its termination message, if it has written one."""
        return TerminationMessage.parse(self._message.read_text()) if self._message.exists() else None

    @property
    def child(self) -> int:
        """The pid of the flow's process."""
        return wait_until(lambda: children_of(self.process.pid), "the flow's process", timeout=30)[0]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send SIGTERM, as a kubelet does, or another signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 60.0) -> int:
        """Return its exit code, or 128 + the number of a signal."""
        code = self.process.wait(timeout)
        return code if code >= 0 else 128 - code

    def end(self) -> None:
        """Kill it and its child process, at the end of a test."""
        pids = [self.process.pid, *children_of(self.process.pid)]
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in pids:
            wait_until(lambda pid=pid: not is_alive(pid), f"the end of process {pid}")  # type: ignore[misc]


@contextmanager
def launcher() -> Iterator[Callable[..., RunnerProcess]]:
    """Yield a function that starts runners, by the arguments of :class:`RunnerProcess`. All are ended afterwards."""
    started: list[RunnerProcess] = []

    def launch(assigned: AssignedRun, **options: Any) -> RunnerProcess:
        started.append(RunnerProcess(assigned, **options))
        return started[-1]

    try:
        yield launch
    finally:
        for runner in started:
            print(runner.output)  # noqa: T201 - pytest shows it where a test failed
            runner.end()
