"""Runs on a real cluster, under exactly the documentation's Role: issue 5, "Real parts and tests". All are submitted
at once, each test then waits for its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from dispatcher import Cause, Flow, FlowFailed, Run, RunCrashed, State
from tests.cloud import flows, place
from tests.cloud.estate import SMALL, Estate

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]

Test = Callable[..., None]


def submits(flow: Flow[..., Any], parameters: dict[str, Any] | None = None, **given: Any) -> Callable[[Test], Test]:
    """The run of a test, submitted with those of all others: environment's arguments, and options."""

    def mark(test: Test) -> Test:
        test.__dict__["submits"] = (flow, parameters, given)
        return test

    return mark


@pytest.fixture(scope="module")
def runs(estate: Estate, request: pytest.FixtureRequest) -> dict[str, Run[Any]]:
    """The runs of the tests that were chosen, by the tests' names."""
    estate.worker()
    found = {}
    for item in request.session.items:
        test = getattr(item, "function", None)
        if test is not None and test.__module__ == __name__ and "submits" in test.__dict__:
            flow, parameters, given = test.__dict__["submits"]
            found[item.name] = estate.submit(flow, parameters, **given)
    return found


@pytest.fixture
def run(runs: dict[str, Run[Any]], request: pytest.FixtureRequest) -> Run[Any]:
    """This test's run."""
    return runs[request.node.name]


@submits(flows.add, {"a": 1, "b": 2})
def test_success(estate: Estate, run: Run[int]) -> None:
    estate.ended(run, State.SUCCEEDED)
    assert run.result() == 3
    assert estate.server.noted(run, "ran") == 1
    assert estate.server.noted(run, "on_exit SUCCEEDED") == 1
    assert {"printed 1", "logged 2"} <= {line.text for line in run.logs()}
    kinds = [str(event.kind) for event in run.events()]
    assert sorted(kinds) == sorted(["queued", "claimed", "provisioning", "pending", "started", "exited"])
    names = [phase.name for phase in run.timeline().phases]
    assert {"created", "scheduled", "pulled", "started", "first line", "finished"} <= set(names), names


@submits(flows.fail)
def test_failure(estate: Estate, run: Run[None]) -> None:
    error = estate.ended(run, State.FAILED)
    assert isinstance(error, FlowFailed)
    assert isinstance(error.__cause__, ValueError)
    assert "no such luck" in str(error)
    assert estate.server.noted(run, "on_exit FAILED") == 1


@submits(flows.hold, {"seconds": 300})
def test_cancel_while_running(estate: Estate, run: Run[str]) -> None:
    estate.begun(run)
    assert run.cancel()
    estate.ended(run, State.CANCELLED)
    assert estate.server.noted(run, "on_exit CANCELLED") == 1
    assert estate.server.noted(run, "held") == 0


@submits(flows.hold, {"seconds": 300}, timeout=3)
def test_timeout(estate: Estate, run: Run[str]) -> None:
    error = estate.ended(run, State.TIMED_OUT)
    assert "timeout of 3 s" in str(error)
    assert estate.server.noted(run, "on_exit TIMED_OUT") == 1


@submits(flows.eat, environment={"resources": {**SMALL, "limits": {"memory": "128Mi"}}})
def test_out_of_memory(estate: Estate, run: Run[int]) -> None:
    error = cast("RunCrashed", estate.ended(run, State.CRASHED, Cause.OOM_KILLED))
    assert error.exit_code == 137
    assert "hungry" in "\n".join(error.log_tail)


@submits(flows.leave, {"code": 3})
def test_an_exit_without_a_report(estate: Estate, run: Run[None]) -> None:
    error = cast("RunCrashed", estate.ended(run, State.CRASHED, Cause.KILLED))
    assert error.exit_code == 3
    assert "leaving" in "\n".join(error.log_tail)


@submits(flows.hold, {"seconds": 300})
def test_pod_deleted(estate: Estate, run: Run[str]) -> None:
    estate.begun(run)
    place.kubectl("delete", "pod", "-n", estate.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    estate.ended(run, State.CRASHED, Cause.KILLED)
    assert estate.server.noted(run, "ran") == 1


@submits(flows.hold, {"seconds": 300})
def test_job_deleted(estate: Estate, run: Run[str]) -> None:
    estate.begun(run)
    place.kubectl("delete", "job", "-n", estate.name, "-l", f"flow_run_id={run.id}", "--wait=false")
    estate.ended(run, State.CRASHED, Cause.KILLED)
