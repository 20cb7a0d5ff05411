"""Flows that end in a strange way: each end is named for what it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, FlowFailed, LocalEnvironment, Run, RunTimedOut, context, flow
from dispatcher.errors import CancelInterrupt, PreemptInterrupt, RunInterrupt, TimeoutInterrupt
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.states import Cause, State
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.workers import ROOT, Bench, Worker

pytestmark = pytest.mark.integration

StartWorker = Callable[..., Worker]
INTERRUPTS = {kind.__name__: kind for kind in (CancelInterrupt, PreemptInterrupt, TimeoutInterrupt, RunInterrupt)}


@flow
def interrupts_itself(kind: str) -> None:
    raise INTERRUPTS[kind]("by the flow")


def tells(path: str) -> Callable[[], None]:
    def on_exit() -> None:
        Path(path).write_text(f"{context.state} {type(context.exception).__name__}")

    return on_exit


@pytest.mark.parametrize("kind", INTERRUPTS)
def test_an_interrupt_that_nobody_sent_is_a_failure(
    kind: str, client: Dispatcher, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker(concurrency=1)
    path = tmp_path / "told"
    environment = LocalEnvironment(on_exit=tells(str(path)))
    run = client.submit(interrupts_itself, {"kind": kind}, environment=environment)
    with pytest.raises(FlowFailed, match=f"{kind}: by the flow") as raised:
        run.result(60)
    assert (run.state, type(raised.value.__cause__)) == (State.FAILED, INTERRUPTS[kind])
    assert path.read_text() == f"FAILED {kind}"


def test_it_is_one_in_a_container_too(bench: Bench, tmp_path: Path) -> None:
    runner = RunnerProcess(AssignedRun(bench, tmp_path, interrupts_itself, parameters={"kind": "PreemptInterrupt"}))
    try:
        assert runner.wait() == 0, runner.output
        outcome = runner.assigned.report_of(ReportKind.EXITED).outcome
        assert (outcome.cause, outcome.reason) == (Cause.USER_ERROR, "PreemptInterrupt")
        assert outcome.message == "by the flow"
    finally:
        runner.end()


@pytest.mark.parametrize(("module", "claimed"), [("redis", False), ("cloudpickle", True)])
def test_a_module_that_the_image_lacks_is_named(bench: Bench, tmp_path: Path, module: str, claimed: bool) -> None:
    """The runner loads most of its modules only after the claim."""
    without = tmp_path / "without"
    without.mkdir()
    (without / f"{module}.py").write_text(f'raise ModuleNotFoundError("No module named {module!r}")\n')
    assigned = AssignedRun(bench, tmp_path, interrupts_itself, parameters={"kind": "PreemptInterrupt"})
    runner = RunnerProcess(assigned, variables={"PYTHONPATH": f"{without}{os.pathsep}{ROOT}"})
    assert runner.wait() == 1, runner.output
    last = f"ModuleNotFoundError: No module named {module!r}"
    assert runner.message is not None
    assert (runner.message.cause, f"{runner.message.reason}: {runner.message.message}") == ("start_failed", last)
    if not claimed:
        return
    outcome = assigned.report_of(ReportKind.DIED).outcome
    assert outcome.cause is Cause.START_FAILED
    assert f"{outcome.reason}: {outcome.message}" == last


class SlowText(Exception):
    def __str__(self) -> str:
        time.sleep(3)
        return "slow"


@flow
def stops_at_once() -> None:
    try:
        time.sleep(60)
    except BaseException:
        raise SlowText from None


def test_a_flow_that_stops_at_once_did_so_however_long_its_exception_takes(bench: Bench, tmp_path: Path) -> None:
    """As on a busy node: what it raised is described long after ``stop_grace``."""
    assert bench.settings.timing.stop_grace < 2
    runner = RunnerProcess(AssignedRun(bench, tmp_path, stops_at_once, timeout=5))
    try:
        assert runner.wait() == 0, runner.output
        outcome = runner.assigned.report_of(ReportKind.EXITED).outcome
        assert (outcome.cause, outcome.message) == (Cause.DEADLINE, "ran longer than its timeout")
    finally:
        runner.end()


class NoAttributes:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no attribute {name}")


class NoClass:
    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            raise SystemExit("no class")
        return super().__getattribute__(name)


class NoItems(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("no items")


class NoPairs(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no pairs")


HOSTILE: dict[str, Any] = {kind.__name__: kind for kind in (NoAttributes, NoClass, NoItems, NoPairs)}


@flow
def gives_hostile(kind: str, *, nested: bool) -> Any:
    made = (
        HOSTILE[kind]([1]) if kind == "NoItems" else HOSTILE[kind]({"a": 1}) if kind == "NoPairs" else HOSTILE[kind]()
    )
    return {"a": [made]} if nested else made


@pytest.mark.parametrize("nested", [False, True])
def test_a_result_that_can_not_be_looked_into_is_named_as_the_result(
    nested: bool, client: Dispatcher, start_worker: StartWorker
) -> None:
    start_worker(concurrency=1)
    runs = [client.submit(gives_hostile, {"kind": kind, "nested": nested}) for kind in HOSTILE]
    for run in runs:
        error = run.exception(60)
        assert isinstance(error, FlowFailed)
        assert "the result of flow 'gives_hostile'" in str(error)
        assert "InvalidInput" in str(error)


def hang() -> None:
    while True:
        time.sleep(60)


class HangsInReduce:
    def __reduce__(self) -> Any:
        hang()


class HangsInDel:
    def __del__(self) -> None:
        if context.run_id:
            hang()

    def __reduce__(self) -> Any:
        return int, ()


class HangsInStr(Exception):
    def __str__(self) -> str:
        hang()
        return ""


HANGING: dict[str, Any] = {kind.__name__: kind for kind in (HangsInReduce, HangsInDel, HangsInStr)}


@flow(timeout=1)
def hangs_afterwards(kind: str) -> Any:
    if kind == "HangsInStr":
        raise HANGING[kind]
    return HANGING[kind]()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "HangsInReduce",
            "the flow returned, but its result was being pickled or freed when its timeout of 1 s passed",
        ),
        ("HangsInDel", "the flow returned, but its result was being pickled or freed when its timeout of 1 s passed"),
        ("HangsInStr", "the flow raised an exception, which was being described, pickled or freed when its timeout of"),
    ],
)
def test_what_hangs_after_the_flow_is_named(
    kind: str, message: str, client: Dispatcher, start_worker: StartWorker
) -> None:
    start_worker(concurrency=1)
    run: Run[Any] = client.submit(hangs_afterwards, {"kind": kind})
    with pytest.raises(RunTimedOut) as raised:
        run.result(60)
    assert message in str(raised.value)
