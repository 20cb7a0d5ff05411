"""The runner of a container whose run has a Dask cluster of its own. The test plays backend and supervisor: it starts
a process for each worker that the reports want."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dispatcher import context, flow, gather, task
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause
from tests.dask_workers import Workers
from tests.integration.projects import Project
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.workers import Bench, children_of, is_alive
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class ClusterRun:
    """A run with a cluster of its own, its runner and its workers."""

    def __init__(self, bench: Bench, directory: Path, body: Any, *options: str, **assignment: Any) -> None:
        self.assigned = AssignedRun(bench, directory, body, **assignment)
        self.workers = Workers(directory / "cluster", *options)
        self.runner = RunnerProcess(
            self.assigned, variables={**self.workers.variables, "TMPDIR": str(self.workers.temporary)}
        )
        self._seen = 0

    def supervise(self) -> bool:
        """Follow the reports that have come since the last call. Return True."""
        reports = self.assigned.reports()
        for report in reports[self._seen :]:
            if report.workers is not None:
                self.workers.follow(report.workers)
        self._seen = len(reports)
        return True

    def until(self, condition: Callable[[], Any], event: str, timeout: float = 90) -> None:
        """Wait while the reports are followed."""
        wait_until(lambda: self.supervise() and condition(), event, timeout=timeout)

    def outcome(self) -> Outcome:
        """Wait for the end of the runner, and return the outcome that it has reported: itself, or for its child."""
        self.until(lambda: self.runner.process.poll() is not None, "the runner's end")
        died = ReportKind.DIED in self.assigned.report_kinds()
        return self.assigned.report_of(ReportKind.DIED if died else ReportKind.EXITED).outcome

    def scheduler(self) -> int:
        """Return the pid of the scheduler."""
        self.until(lambda: children_of(self.runner.child), "the scheduler's start")
        return int(children_of(self.runner.child)[0])

    def lines(self) -> list[str]:
        """Return the run's log."""
        return [line.text for line in self.assigned.bench.records.logs.read(self.assigned.run_id)[0]]


Start = Callable[..., ClusterRun]


@pytest.fixture
def start(bench: Bench, tmp_path: Path) -> Iterator[Start]:
    started: list[ClusterRun] = []

    def launch(body: Any, *options: str, workers: Sequence[int] = (1, 1), **assignment: Any) -> ClusterRun:
        (tmp_path / "cluster").mkdir()
        started.append(ClusterRun(bench, tmp_path, body, *options, workers=workers, **assignment))
        return started[-1]

    yield launch
    for run in started:
        print(run.runner.output)  # noqa: T201 - pytest shows it where a test failed
        run.runner.end()
        run.workers.end()


@task
def double(number: int) -> int:
    print(f"doubles {number}")  # noqa: T201 - what it prints is what is tested
    return 2 * number


@flow
def doubles() -> list[int]:
    return list(gather(double.map([1, 2, 3])))


@flow
def delays() -> int:
    import dask

    def noisy(number: int) -> int:
        print(f"adds {number}")  # noqa: T201
        logging.getLogger("shop").warning("logs %d", number)
        return number + 1

    return int(dask.delayed(noisy)(1).compute())


@flow
def waits(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(120)


@flow
def waits_for_a_task(path: str) -> None:
    def sleep(path: str) -> None:
        Path(path).touch()
        time.sleep(120)

    task(sleep).submit(path).result()


@flow
def ignores_interrupts(path: str) -> None:
    Path(path).touch()
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1)


@flow
def has_a_cluster_of_its_own() -> int:
    import distributed

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        assert cluster.scheduler_address.startswith("tcp://")
        return int(client.submit(sum, [1, 2]).result())


def tells_its_state() -> None:
    print(f"on_exit: {context.state}")  # noqa: T201


def uses_the_cluster() -> None:
    import distributed

    with distributed.Client(f"tls://127.0.0.1:{os.environ['DISPATCHER__RUN__SCHEDULER_PORT']}") as client:
        print(f"on_exit computed {client.submit(sum, [20, 22]).result()}")  # noqa: T201


def test_a_flow_starts_once_its_workers_have_joined_and_computes_on_them(start: Start) -> None:
    run = start(doubles, workers=(2, 2), on_exit=uses_the_cluster)
    outcome = run.outcome()
    assert outcome.cause is None, outcome
    assert outcome.result is not None
    assert outcome.result.inline == "[2,4,6]"
    kinds = run.assigned.report_kinds()
    assert kinds.index(ReportKind.WORKERS) < kinds.index(ReportKind.SETTLED) < kinds.index(ReportKind.EXITED)
    first = run.workers.reports[0]
    assert (first.wanted, first.connected, first.ready) == (("w1", "w2"), (), False)
    ready = [report for report in run.workers.reports if report.ready]
    assert len(ready[0].connected) == 2
    doubled = [line for line in run.lines() if "doubles" in line]
    assert sorted(line.partition("] ")[2] for line in doubled) == ["doubles 1", "doubles 2", "doubles 3"]
    assert {line.partition(" ")[0] for line in doubled} <= {"[w1]", "[w2]"}
    assert "on_exit computed 42" in run.lines()
    wait_until(lambda: not any(map(run.workers.is_alive, ("w1", "w2"))), "the workers' end", timeout=30)


def test_a_flow_without_least_workers_starts_at_once_and_computes_on_one_that_comes(start: Start) -> None:
    run = start(delays, workers=(0, 1))
    outcome = run.outcome()
    assert outcome.result is not None, outcome
    assert outcome.result.inline == "2"
    assert run.workers.reports[0].ready
    assert "[w1] adds 1" in run.lines()
    assert "shop: [w1] logs 1" in run.lines()


def test_a_heartbeat_carries_the_workers(start: Start, tmp_path: Path) -> None:
    run = start(waits, parameters={"path": str(tmp_path / "on")})
    run.until(lambda: ReportKind.ALIVE in run.assigned.report_kinds(), "a heartbeat", timeout=60)
    run.until(lambda: run.workers.latest.ready, "the worker")
    run.until(
        lambda: [
            report for report in run.assigned.reports()
            if report.kind is ReportKind.ALIVE and report.workers == run.workers.latest
        ],
        "a heartbeat with the latest report",
        timeout=60,
    )  # fmt: skip


def test_a_cancel_ends_the_wait_for_workers(start: Start, tmp_path: Path) -> None:
    run = start(waits, parameters={"path": str(tmp_path / "on")}, on_start=tells_its_state, on_exit=tells_its_state)
    run.workers.paused = True
    scheduler = run.scheduler()
    run.until(lambda: run.workers.reports, "the scheduler")
    run.assigned.request_cancel()
    run.runner.stop()
    assert run.outcome().cause is Cause.CANCELLED
    assert not (tmp_path / "on").exists()
    assert [line for line in run.lines() if "on_exit" in line] == ["on_exit: CANCELLED"]
    assert not is_alive(scheduler)


def test_a_worker_with_other_versions_ends_the_run_before_its_flow_starts(start: Start, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "import distributed.versions as versions\n"
        "def info(names, made=versions.get_package_info):\n"
        "    return {**made(names), 'cloudpickle': '1.0'}\n"
        "versions.get_package_info = info\n"
    )
    run = start(waits, "--preload", str(other), parameters={"path": str(tmp_path / "on")})
    outcome = run.outcome()
    assert outcome.cause is Cause.CONFIG_ERROR
    assert "Dask worker w1" in outcome.message
    assert "cloudpickle 1.0 instead of " in outcome.message
    assert not (tmp_path / "on").exists()


@pytest.mark.parametrize("body", [waits, waits_for_a_task], ids=["computes", "waits for a task"])
def test_the_death_of_the_scheduler_ends_the_run(start: Start, tmp_path: Path, body: Any) -> None:
    run = start(body, parameters={"path": str(tmp_path / "on")}, on_exit=tells_its_state)
    scheduler = run.scheduler()
    run.until((tmp_path / "on").exists, "the flow's start")
    os.kill(scheduler, signal.SIGKILL)
    at = time.monotonic()
    run.until(lambda: ReportKind.SETTLED in run.assigned.report_kinds(), "the run's end", timeout=30)
    assert time.monotonic() - at < 5
    outcome = run.outcome()
    assert (outcome.cause, outcome.reason) == (Cause.KILLED, "SIGKILL")
    assert "the scheduler of the run's Dask cluster was killed by SIGKILL" in outcome.message
    assert "on_exit: CRASHED" in run.lines()


def test_a_flow_that_goes_on_without_its_scheduler_is_killed(start: Start, tmp_path: Path) -> None:
    run = start(ignores_interrupts, parameters={"path": str(tmp_path / "on")})
    scheduler = run.scheduler()
    run.until((tmp_path / "on").exists, "the flow's start")
    os.kill(scheduler, signal.SIGKILL)
    at = time.monotonic()
    run.until(lambda: ReportKind.DIED in run.assigned.report_kinds(), "the run's end", timeout=30)
    assert time.monotonic() - at < 6
    outcome = run.assigned.report_of(ReportKind.DIED).outcome
    assert outcome.cause is Cause.KILLED
    assert "the scheduler of the run's Dask cluster was killed by SIGKILL" in outcome.message
    run.runner.wait()
    assert run.runner.message is not None
    assert "the scheduler of the run's Dask cluster" in run.runner.message.message


def test_the_scheduler_dies_while_workers_are_waited_for(start: Start, tmp_path: Path) -> None:
    run = start(waits, parameters={"path": str(tmp_path / "on")})
    run.workers.paused = True
    run.until(lambda: run.workers.reports, "the scheduler")
    os.kill(run.scheduler(), signal.SIGKILL)
    outcome = run.outcome()
    assert outcome.cause is Cause.KILLED
    assert "the scheduler of the run's Dask cluster" in outcome.message
    assert not (tmp_path / "on").exists()


def test_a_flow_with_a_cluster_can_make_a_plain_one(start: Start) -> None:
    run = start(has_a_cluster_of_its_own)
    outcome = run.outcome()
    assert outcome.result is not None, outcome
    assert outcome.result.inline == "3"


def test_the_project_reaches_all_workers_also_late_ones(
    bench: Bench, server_url: str, tmp_path: Path, start: Start
) -> None:
    etl = f"""
        import time
        from backends.fake import FakeEnvironment
        from dispatcher import flow, gather, task
        from shop import prices
        @task
        def priced(number):
            from shop.late import FACTOR
            return prices.double(number) * FACTOR
        @flow(environment=FakeEnvironment({str(tmp_path)!r}, workers=(0, 1), scheduler=True))
        def main():
            import dask, distributed
            first = gather(priced.submit(1))
            client = distributed.get_client()
            while client.scheduler_info()["workers"]:
                time.sleep(0.05)
            return [first, gather(priced.submit(2)), dask.delayed(prices.double)(3).compute()]
        """
    files = {
        "etl.py": etl, "shop/__init__.py": "", "shop/prices.py": "def double(n): return 2 * n",
        "shop/late.py": "FACTOR = 10",
    }  # fmt: skip
    project = Project(tmp_path / "project", server_url, files)
    try:
        run_id = project.submit("main")
    finally:
        project.close()
    run = start(run_id, workers=None)
    outcome = run.outcome()
    assert outcome.result is not None, outcome
    assert outcome.result.inline == "[20,40,6]"
    assert set(run.workers.processes) == {"w1", "w2"}
