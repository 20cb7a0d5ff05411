"""The runner as PID 1 of a container: parent and child, claims, SIGTERM, timeouts, termination messages.

Real processes on the real server; the test plays backend and supervisor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import context, flow
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.states import Cause, State
from tests.conftest import Server
from tests.integration.runners import AssignedRun, RunnerProcess, launcher
from tests.integration.workers import Bench, is_alive
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

Start = Callable[..., RunnerProcess]
Make = Callable[..., AssignedRun]


@flow
def double(number: int) -> int:
    print("printed")  # noqa: T201 - what it prints is what is tested
    os.system("echo by a child process")
    context.logger.warning("logged")
    return 2 * number


@flow
def wait(path: str, seconds: float = 60.0) -> str:
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    return "waited"


@flow
def misses_first_signal(path: str, name: str) -> None:
    """Misses the first signal, as Python does where another thread takes its lock."""
    number, missed = signal.Signals[name], Path(path).with_suffix(".missed")
    handler = signal.signal(number, lambda *_: missed.touch())
    Path(path).write_text(str(os.getpid()))
    wait_until(missed.exists, "the first signal", timeout=30)
    signal.signal(number, handler)
    time.sleep(60)


@flow
def ignores_interrupts(path: str) -> None:
    """Doesn't end when it is interrupted; a long C call wouldn't either."""
    Path(path).write_text(str(os.getpid()))
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1)


@flow
def leave(code: int) -> None:
    os._exit(code)


@flow
def orphan(path: str) -> None:
    """Start a process that outlives its parent."""
    pid = os.fork()
    if pid == 0:
        Path(path).write_text(str(os.getpid()))
        time.sleep(600)
    time.sleep(600)


@flow
def sees() -> list[str]:
    return sorted(name for name in os.environ if name.startswith("DISPATCHER__"))


def slow_exit() -> None:
    print("on_exit begins", flush=True)  # noqa: T201
    time.sleep(60)


def say(text: str) -> Callable[[], None]:
    def on_exit() -> None:
        print(f"{text}: {context.state}")  # noqa: T201

    return on_exit


@pytest.fixture
def make(bench: Bench, tmp_path: Path) -> Make:
    def make_run(body: Any, **options: Any) -> AssignedRun:
        return AssignedRun(bench, tmp_path, body, **options)

    return make_run


@pytest.fixture
def start() -> Iterator[Start]:
    with launcher() as launch:
        yield launch


def running(assigned: AssignedRun, path: Path) -> int:
    """Wait for the flow's start and return its pid."""
    text = wait_until(lambda: path.exists() and path.read_text(), "the flow's start", timeout=60)
    assert assigned.record.state is State.RUNNING
    return int(str(text))


def test_a_flow_runs_and_its_end_is_reported(make: Make, start: Start) -> None:
    assigned = make(double, parameters={"number": 21})
    runner = start(assigned, in_file=True, variables={"DISPATCHER__RUN__UID": "pod-1"})
    assert runner.wait() == 0
    assert assigned.record.holder.startswith("pod-1:")
    report = assigned.report_of(ReportKind.EXITED)
    assert report.outcome.cause is None
    assert report.outcome.result is not None
    assert report.outcome.result.inline == "42"
    assert report.exit_call is ExitCall.NONE
    assert runner.message is not None
    assert (runner.message.state, runner.message.reported, runner.message.run) == ("SUCCEEDED", True, assigned.run_id)


def test_lines_go_to_the_records_and_to_the_containers_log(make: Make, start: Start, bench: Bench) -> None:
    assigned = make(double, parameters={"number": 1})
    runner = start(assigned)
    assert runner.wait() == 0
    assert bench.lines(assigned.run_id) == ["printed", "by a child process", "logged"]
    assert runner.output.splitlines() == ["printed", "by a child process", "logged"]


@pytest.mark.parametrize("in_file", [False, True], ids=["variables", "file"])
def test_the_flow_sees_no_secret_in_its_variables(make: Make, start: Start, in_file: bool) -> None:
    assigned = make(sees)
    assert start(assigned, in_file=in_file).wait() == 0
    value = assigned.report_of(ReportKind.EXITED).outcome.result
    assert value is not None
    result = value.inline or ""
    assert "DISPATCHER__RUN__ID" in result
    for secret in assigned.secrets:
        assert f'"{secret}"' not in result


def test_a_second_process_of_the_attempt_stands_by(make: Make, start: Start, tmp_path: Path) -> None:
    """It never runs the flow, doesn't end first, and exits with 0 at SIGTERM."""
    assigned = make(wait, parameters={"path": str(tmp_path / "on")})
    start(assigned)
    pid = running(assigned, tmp_path / "on")
    loser = start(assigned, variables={"DISPATCHER__RUN__UID": "other"})
    wait_until(lambda: "stands by" in loser.output, "the loser's refused claim", timeout=60)
    assert loser.process.poll() is None
    loser.stop()
    assert loser.wait() == 0
    assert loser.message is None
    assert is_alive(pid)
    assert assigned.report_kinds() == []


def test_a_loser_ends_with_the_run(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(wait, parameters={"path": str(tmp_path / "on"), "seconds": 3.0})
    first = start(assigned)
    running(assigned, tmp_path / "on")
    loser = start(assigned)
    assert first.wait() == 0
    assigned.finish()
    assert loser.wait() == 0


def test_the_same_process_start_alone_may_claim_twice(make: Make, start: Start) -> None:
    """A container that the kubelet starts again in its pod has another nonce, so it never runs the flow."""
    assigned = make(double, parameters={"number": 1})
    assert start(assigned, variables={"DISPATCHER__RUN__UID": "pod"}).wait() == 0
    again = start(assigned, variables={"DISPATCHER__RUN__UID": "pod"})
    assigned.finish()
    assert again.wait() == 0
    assert assigned.report_kinds() == [ReportKind.EXITED]


def test_a_flow_that_missed_sigterm_is_told_again(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(misses_first_signal, parameters={"path": str(tmp_path / "on"), "name": "SIGTERM"})
    runner = start(assigned, grace=30)
    running(assigned, tmp_path / "on")
    runner.stop()
    assert runner.wait() == 143
    assert assigned.report_of(ReportKind.EXITED).outcome.cause is Cause.PREEMPTED


def test_a_flow_that_missed_its_timeout_is_told_again(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(misses_first_signal, parameters={"path": str(tmp_path / "on"), "name": "SIGUSR1"}, timeout=1)
    runner = start(assigned, variables={"DISPATCHER__TIMING__STOP_GRACE": "30"})
    assert runner.wait() == 0
    assert assigned.report_of(ReportKind.EXITED).outcome.cause is Cause.DEADLINE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_ends_the_flow_and_on_exit_runs(make: Make, start: Start, tmp_path: Path, number: int) -> None:
    assigned = make(wait, parameters={"path": str(tmp_path / "on")}, on_exit=say("told"))
    runner = start(assigned, grace=30)
    pid = running(assigned, tmp_path / "on")
    if number == signal.SIGHUP:
        os.kill(pid, number)  # sent to all of a container, it counts once
    runner.stop(number)
    assert runner.wait() == 143
    assert assigned.report_kinds() == [ReportKind.SETTLED, ReportKind.EXITED]
    report = assigned.report_of(ReportKind.EXITED)
    assert (report.outcome.cause, report.exit_call) == (Cause.PREEMPTED, ExitCall.CALLED)
    assert "SIGTERM" in report.outcome.message
    assert "told: CRASHED" in assigned.bench.lines(assigned.run_id)
    assert not is_alive(pid)
    assert runner.message is not None
    assert (runner.message.cause, runner.message.on_exit) == ("preempted", "called")


def test_sigterm_during_a_c_call_kills_after_two_thirds_of_the_grace(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(ignores_interrupts, parameters={"path": str(tmp_path / "on")})
    runner = start(assigned, grace=6)
    pid = running(assigned, tmp_path / "on")
    begun = time.monotonic()
    runner.stop()
    code = runner.wait()
    took = time.monotonic() - begun
    print(f"SIGTERM to exit with a grace of 6 s: {took:.1f} s")  # noqa: T201
    assert code == 137
    assert took > 3.9
    assert not is_alive(pid)
    assert assigned.report_of(ReportKind.DIED).outcome.cause is Cause.PREEMPTED
    assert runner.message is not None
    assert (runner.message.cause, runner.message.reported) == ("preempted", True)


def test_sigterm_during_imports_ends_it_before_its_claim(make: Make, start: Start) -> None:
    assigned = make(double, parameters={"number": 1})
    runner = start(assigned, variables={"DISPATCHER__URL": "redis://192.0.2.1:6379"})  # never answers
    assert runner.child
    runner.stop()
    assert runner.wait() == 143
    assert assigned.record.state is State.PENDING
    assert runner.message is not None
    assert (runner.message.cause, runner.message.reported) == ("killed", False)


def test_the_parent_hears_sigterm_from_its_first_moments(make: Make, start: Start) -> None:
    """Whenever the signal arrives, the container ends, and no claim outlives it."""
    assigned = make(wait, parameters={"path": os.devnull})
    for pause in (0.02, 0.05, 0.1, 0.2, 0.4):
        runner = start(assigned)
        with contextlib.suppress(subprocess.TimeoutExpired):
            runner.wait(pause)
        runner.stop()
        assert runner.wait(30) in {0, 143}  # its claim may have come first


def test_a_timeout_is_heard_by_the_flow(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(wait, parameters={"path": str(tmp_path / "on")}, timeout=0.5)
    assert start(assigned).wait() == 0
    assert assigned.report_of(ReportKind.EXITED).outcome.cause is Cause.DEADLINE


@pytest.mark.parametrize("days", [25, 100_000])
def test_a_timeout_may_be_longer_than_the_system_can_wait_at_once(make: Make, start: Start, days: int) -> None:
    runner = start(make(double, parameters={"number": 1}, timeout=days * 86400))
    assert runner.wait() == 0
    assert "Traceback" not in runner.output


def test_a_flow_deaf_to_its_timeout_is_killed_after_stop_grace(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(
        ignores_interrupts, parameters={"path": str(tmp_path / "on")}, timeout=5
    )  # it must be in its loop by then
    runner = start(assigned)
    assert runner.wait() == 137
    assert assigned.report_of(ReportKind.DIED).outcome.cause is Cause.DEADLINE
    assert runner.message is not None
    assert runner.message.state == "TIMED_OUT"


def test_an_on_exit_without_end_is_killed_and_the_outcome_stands(make: Make, start: Start) -> None:
    assigned = make(double, parameters={"number": 1}, on_exit=slow_exit)
    runner = start(assigned)
    assert runner.wait() == 137
    assert assigned.report_kinds() == [ReportKind.SETTLED, ReportKind.DIED]
    assert assigned.report_of(ReportKind.SETTLED).outcome.cause is None
    assert runner.message is not None
    assert runner.message.state == "SUCCEEDED"


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_killed_flow_is_told_of_by_the_parent(
    make: Make, start: Start, tmp_path: Path, number: int, name: str
) -> None:
    assigned = make(wait, parameters={"path": str(tmp_path / "on")})
    runner = start(assigned)
    os.kill(running(assigned, tmp_path / "on"), number)
    assert runner.wait() == 128 + number
    outcome = assigned.report_of(ReportKind.DIED).outcome
    assert (outcome.cause, outcome.reason, outcome.exit_code) == (Cause.KILLED, name, 128 + number)


@pytest.mark.parametrize("code", [0, 3])
def test_a_flow_that_leaves_has_no_result(make: Make, start: Start, code: int) -> None:
    """Exit code 0 without a report isn't a success."""
    assigned = make(leave, parameters={"code": code})
    runner = start(assigned)
    assert runner.wait() == code
    outcome = assigned.report_of(ReportKind.DIED).outcome
    assert (outcome.cause, outcome.exit_code) == (Cause.RESULT_MISSING, code)


def test_what_the_flow_started_ends_with_it(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(orphan, parameters={"path": str(tmp_path / "on")})
    runner = start(assigned)
    left = running(assigned, tmp_path / "on")
    runner.stop()
    assert runner.wait() == 143
    wait_until(lambda: not is_alive(left), "the end of what it started")


def test_a_killed_parent_takes_the_flow_with_it(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(wait, parameters={"path": str(tmp_path / "on")})
    runner = start(assigned)
    pid = running(assigned, tmp_path / "on")
    runner.process.kill()
    wait_until(lambda: not is_alive(pid), "the flow's end")


def test_it_says_that_it_lives(make: Make, start: Start, tmp_path: Path) -> None:
    assigned = make(wait, parameters={"path": str(tmp_path / "on")})
    start(assigned)
    running(assigned, tmp_path / "on")
    wait_until(lambda: ReportKind.ALIVE in assigned.report_kinds(), "a sign of life, every 10 s", timeout=30)


def test_a_result_waits_for_redis(make: Make, start: Start, tmp_path: Path, server: Server) -> None:
    assigned = make(wait, parameters={"path": str(tmp_path / "on"), "seconds": 2.0})
    runner = start(assigned)
    running(assigned, tmp_path / "on")
    server.kill()
    try:
        message = wait_until(lambda: runner.message, "last words while Redis is away", timeout=30)
        assert message is not None
        assert not message.reported
    finally:
        server.start()
    assert runner.wait() == 0
    assert assigned.report_of(ReportKind.EXITED).outcome.cause is None
    assert runner.message is not None
    assert runner.message.reported


def test_told_to_stop_while_redis_is_away_the_last_words_hold_the_outcome(
    make: Make, start: Start, tmp_path: Path, server: Server
) -> None:
    assigned = make(wait, parameters={"path": str(tmp_path / "on"), "seconds": 1.0})
    runner = start(assigned, grace=3)
    running(assigned, tmp_path / "on")
    server.kill()
    try:
        wait_until(lambda: runner.message, "last words", timeout=30)
        runner.stop()
        assert runner.wait() == 3
    finally:
        server.start()
    assert runner.message is not None
    assert (runner.message.state, runner.message.reported) == ("SUCCEEDED", False)
    assert runner.message.outcome().cause is Cause.RESULT_MISSING
    assert assigned.report_kinds() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "can't be read: No such file"), ("{", "isn't JSON"), ("[1]", "isn't a JSON object of strings")],
)
def test_a_wrong_file_of_secrets_is_named(
    make: Make, start: Start, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "secrets.json"
    if content is not None:
        file.write_text(content)
    runner = start(make(double), variables={"DISPATCHER__RUN__SECRETS_FILE": str(file)})
    assert runner.wait() == 2
    assert message in runner.output
    assert runner.message is not None
    assert runner.message.cause == "config_error"
    assert message in runner.message.message
