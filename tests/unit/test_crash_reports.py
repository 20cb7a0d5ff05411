"""Supervisors read a crash report before the teardown, however the crash was noticed, and only after a crash."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from backends.base import CrashReport, Handle, Observation, Phase
from dispatcher.cli.formatting import log_line
from dispatcher.client.results import error_of
from dispatcher.errors import Permanent, RunCrashed, Transient
from dispatcher.inspection.explain import explain
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State
from tests.unit.supervisor_scene import Scene, ScriptedBackend


class ReportingBackend(ScriptedBackend):
    """Has a report of each attempt, and the lines of its flow's container."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, bool]] = []
        self.reading = threading.Event()
        self.reading.set()
        self.answer: Callable[[CrashReport], CrashReport] = lambda report: report
        self.log: tuple[str, ...] | Exception = ("read later",)

    def crash_report(self, handle: Handle, *, lines_known: bool) -> CrashReport:
        self.asked.append((str(handle["name"]), lines_known))
        self.reading.wait(30)
        report = CrashReport(text="flow: terminated\n\x1b[31mproxy: running", lines=() if lines_known else ("it said",))
        return self.answer(report)

    def logs(self, handle: Handle) -> tuple[str, ...]:
        if isinstance(self.log, Exception):
            raise self.log
        return self.log


@pytest.fixture
def scene() -> Scene:
    return Scene(ReportingBackend())


def backend(scene: Scene) -> ReportingBackend:
    assert isinstance(scene.backend, ReportingBackend)
    return scene.backend


def report_of(scene: Scene, run_id: str = "r1") -> str:
    outcome = scene.record(run_id).outcome
    return "" if outcome is None else outcome.report


def observe(scene: Scene, record: Any, **facts: Any) -> None:
    backend(scene).observations[str((record.handle or {})["name"])] = Observation(**facts)


def test_a_crash_that_is_observed(scene: Scene) -> None:
    record = scene.running("r1")
    observe(scene, record, phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137)
    scene.until(lambda: report_of(scene), "the report")
    assert len(backend(scene).asked) == 1
    scene.until(lambda: not scene.record("r1").leftovers, "its teardown")
    assert len(backend(scene).asked) == 1
    ended = scene.record("r1")
    lines = explain(ended, now=1.0, workers=[])
    assert "  \\x1b[31mproxy: running" in lines
    error = error_of(None, ended)  # type: ignore[arg-type]
    assert isinstance(error, RunCrashed)
    assert error.report == report_of(scene)
    assert any("Crash report:\nflow: terminated" in note for note in error.__notes__)


def test_a_backend_that_returns_no_report_costs_the_report_alone(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    backend(scene).answer = lambda report: None  # type: ignore[assignment, return-value]
    record = scene.running("r1")
    observe(scene, record, phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137)
    scene.until(lambda: backend(scene).asked and not scene.record("r1").leftovers, "its teardown")
    assert (scene.record("r1").state, report_of(scene)) == (State.CRASHED, "")
    assert "Run r1: its crash report can't be read: the backend returned None" in caplog.text


def test_a_crash_that_its_runner_reports(scene: Scene) -> None:
    record = scene.running("r1")
    scene.report(record, ReportKind.DIED, Outcome(cause=Cause.KILLED, message="signal 9", log_tail=("its own words",)))
    observe(scene, record, phase=Phase.ENDED, exit_code=1)
    scene.until(lambda: report_of(scene), "the report")
    assert [lines_known for _, lines_known in backend(scene).asked] == [True]
    outcome = scene.record("r1").outcome
    assert outcome is not None
    assert outcome.log_tail == ("its own words",)


def test_a_start_that_took_too_long(scene: Scene) -> None:
    record = scene.provisioned("r1", start_within=1)
    observe(scene, record, phase=Phase.WAITING, cause=Cause.IMAGE_PULL, reason="ErrImagePull", message="no such image")
    scene.round()
    scene.records.runs.update("r1", lambda before, now: transitions.tick(before, now + 100))
    assert scene.record("r1").state is State.CRASHED
    scene.until(lambda: report_of(scene), "the report")
    assert [line.text for line in scene.records.logs.read("r1")[0]] == ["it said"]


def test_nothing_is_deleted_while_its_report_is_read(scene: Scene) -> None:
    backend(scene).reading.clear()
    record = scene.running("r1")
    observe(scene, record, phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137)
    scene.until(lambda: backend(scene).asked, "the request")
    for _ in range(5):
        scene.round()
    assert not backend(scene).cancelled
    backend(scene).reading.set()
    scene.until(lambda: not scene.record("r1").leftovers, "its teardown")
    assert report_of(scene)


@pytest.mark.parametrize(
    "outcome", [Outcome(), Outcome(cause=Cause.USER_ERROR), Outcome(cause=Cause.CANCELLED)], ids=str
)
def test_other_ends_cost_nothing(scene: Scene, outcome: Outcome) -> None:
    record = scene.running("r1")
    scene.report(record, ReportKind.EXITED, outcome)
    observe(scene, record, phase=Phase.ENDED, exit_code=0)
    scene.until(lambda: scene.record("r1").terminal and not scene.record("r1").leftovers, "its teardown")
    assert not backend(scene).asked


def test_an_attempt_that_is_repeated_has_none(scene: Scene) -> None:
    record = scene.running("r1", retries=Retry(1))
    observe(scene, record, phase=Phase.ENDED, cause=Cause.KILLED, exit_code=137)
    scene.until(lambda: scene.record("r1").attempt == 2 and not scene.record("r1").leftovers, "the next attempt")
    assert not backend(scene).asked


@pytest.mark.parametrize(
    "problem",
    [
        Permanent("unable to retrieve container logs for containerd://1", cause=Cause.UNKNOWN),
        Transient("the node\ndoesn't answer"),
    ],
    ids=["lost", "silent"],
)
def test_missing_lines_are_a_note_of_the_worker(scene: Scene, problem: Exception) -> None:
    """They are no output of the flow: neither a line of its log nor one of its last lines."""
    backend(scene).log = problem
    record = scene.running("r1", retries=Retry(1))
    observe(scene, record, phase=Phase.ENDED, cause=Cause.KILLED, exit_code=137)
    scene.until(lambda: scene.records.logs.read("r1")[0], "the note")
    [line] = scene.records.logs.read("r1")[0]
    assert line.stream == "gap"
    assert log_line(line) == f"[the last lines can't be read: {' '.join(str(problem).split())}]"
    assert not scene.records.logs.tail("r1", 20, gaps=False)


def test_a_report_without_a_lease_is_left_to_the_next_holder(scene: Scene) -> None:
    record = scene.running("r1")
    backend(scene).reading.clear()
    observe(scene, record, phase=Phase.ENDED, cause=Cause.OOM_KILLED, exit_code=137)
    scene.until(lambda: backend(scene).asked, "the request")
    scene.supervisor.leave()
    backend(scene).reading.set()
    scene.supervisor.tick()
    assert not report_of(scene)
