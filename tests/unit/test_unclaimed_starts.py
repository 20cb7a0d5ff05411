"""Containers that run without claiming their attempts: the log of each is read once, and never in anybody's way."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import pytest

from backends.base import Handle, Observation, Phase
from dispatcher.runs import transitions
from dispatcher.runs.states import Cause, State
from tests.unit.supervisor_scene import Scene, ScriptedBackend
from tests.waiting import wait_until
from workers.supervisor.unclaimed_starts import (
    MOST_WAITING,
    READ_AFTER,
    THREADS,
    UNCLAIMED,
    WAITING,
    UnclaimedStarts,
    reason_in,
)

RUNNING = Observation(phase=Phase.RUNNING)
REFUSED = "can't reach Redis at redis://r:6379/0, as user default: nothing listens there"


class LoggedBackend(ScriptedBackend):
    """A backend whose containers have logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: tuple[str, ...] | Exception = ("an entrypoint's line", f"runner: {REFUSED}")
        self.reads = 0
        self.gate = threading.Event()
        self.gate.set()

    def logs(self, handle: Handle) -> tuple[str, ...]:
        self.reads += 1
        self.gate.wait(30)
        if isinstance(self.lines, Exception):
            raise self.lines
        return self.lines


class Bench:
    """An :class:`UnclaimedStarts` with a clock that the test sets, and a run that hasn't started."""

    def __init__(self, *, backend: ScriptedBackend | None = None) -> None:
        self.scene = Scene()
        self.record = self.scene.provisioned("r1")
        self.backend = backend or LoggedBackend()
        self.now = 100.0
        self.woken = threading.Event()
        self.starts = UnclaimedStarts(self.backend, self.woken.set, lambda: self.now)

    def look(self, observation: Observation = RUNNING) -> Observation:
        return self.starts.explained(self.record, observation)

    def explained(self) -> Observation:
        """Look until the log was read."""
        wait_until(lambda: self.look().message, "the reason")
        return self.look()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def logged(bench: Bench) -> LoggedBackend:
    assert isinstance(bench.backend, LoggedBackend)
    return bench.backend


def test_the_log_is_read_once_after_ten_seconds(bench: Bench) -> None:
    assert bench.look() is RUNNING
    bench.now += READ_AFTER - 0.1
    assert bench.look() is RUNNING
    assert logged(bench).reads == 0
    bench.now += 0.1
    observation = bench.explained()
    assert bench.woken.is_set()
    assert (observation.phase, observation.cause, observation.reason) == (Phase.WAITING, Cause.START_FAILED, WAITING)
    assert observation.message == f"its runner {REFUSED}"
    bench.now += 600
    bench.starts.retain([bench.record])
    assert bench.look() == observation
    assert logged(bench).reads == 1


def test_a_log_that_does_not_come_holds_up_nothing(bench: Bench) -> None:
    logged(bench).gate.clear()
    bench.look()
    bench.now += READ_AFTER
    assert bench.look() is RUNNING
    assert bench.look() is RUNNING
    logged(bench).gate.set()
    assert bench.explained().message
    assert logged(bench).reads == 1


def test_few_logs_are_read_at_once(bench: Bench) -> None:
    """Requests for the logs of thousands that can't reach the server must not be in the way of others."""
    logged(bench).gate.clear()
    records = [bench.scene.provisioned(f"many{number}") for number in range(MOST_WAITING + 5)]

    def look() -> list[Observation]:
        return [bench.starts.explained(record, RUNNING) for record in records]

    look()
    bench.now += READ_AFTER
    look()
    wait_until(lambda: logged(bench).reads == THREADS, "the first requests")
    look()
    logged(bench).gate.set()
    wait_until(lambda: logged(bench).reads == MOST_WAITING, "those that waited")
    wait_until(lambda: all(seen.message for seen in look()), "all reasons")
    assert logged(bench).reads == len(records)


@pytest.mark.parametrize(
    ("lines", "reason", "text"),
    [
        ((), UNCLAIMED, "its container runs, but hasn't claimed the attempt, and its log says nothing"),
        (("a", "b"), UNCLAIMED, "its container runs, but hasn't claimed the attempt; the last line of its log: b"),
        (("runner: one", "runner: two", "b"), WAITING, "its runner two"),
    ],
)
def test_what_a_log_says(lines: tuple[str, ...], reason: str, text: str) -> None:
    assert reason_in(lines) == (reason, text)


def test_a_runner_that_has_said_nothing_yet_is_heard_later(bench: Bench) -> None:
    """A busy node may take more than ten seconds to let it speak. Each pause is twice as long."""
    words, logged(bench).lines = logged(bench).lines, ()
    bench.look()
    bench.now += READ_AFTER
    assert bench.explained().reason == UNCLAIMED
    for pause in (20, 40):
        reads = logged(bench).reads
        bench.now += pause - 0.1
        assert bench.look().reason == UNCLAIMED
        assert logged(bench).reads == reads
        bench.now += 0.1
        bench.woken.clear()
        bench.look()
        wait_until(bench.woken.is_set, "another read")
        assert bench.look().reason == UNCLAIMED
        assert logged(bench).reads == reads + 1
    logged(bench).lines = words
    bench.now += 80
    wait_until(lambda: bench.look().reason == WAITING, "the runner's words")
    assert logged(bench).reads == 4


def test_a_log_that_cannot_be_read(bench: Bench) -> None:
    logged(bench).lines = RuntimeError("away")
    bench.look()
    bench.now += READ_AFTER
    assert bench.explained().message == reason_in(())[1]


def test_a_backend_without_logs() -> None:
    bench = Bench(backend=ScriptedBackend())
    bench.look()
    bench.now += READ_AFTER
    assert bench.look().message == reason_in(())[1]


def test_others_are_left_as_they_are(bench: Bench) -> None:
    claimed = bench.scene.update("r1", partial(transitions.claim_attempt, attempt=1, holder="pod"))
    ending = replace(RUNNING, cause=Cause.EVICTED)
    waits = Observation(phase=Phase.WAITING)
    for _ in range(2):
        assert bench.starts.explained(claimed, RUNNING) is RUNNING
        assert bench.look(ending) is ending
        assert bench.look(waits) is waits
        bench.now += READ_AFTER
    assert logged(bench).reads == 0


def test_a_claimed_attempt_is_forgotten(bench: Bench) -> None:
    bench.look()
    bench.now += READ_AFTER
    bench.explained()
    bench.starts.retain([])
    assert bench.look() is RUNNING, "its time starts anew"


def test_the_reason_is_noted_with_the_run_and_start_within_ends_with_it() -> None:
    scene = Scene()
    record = scene.provisioned("r1", start_within=30.0)
    assert record.handle is not None
    name = str(record.handle["name"])
    scene.backend.observations[name] = Observation(
        phase=Phase.WAITING, cause=Cause.START_FAILED, reason="FailedMount", message="timed out"
    )
    scene.round()
    assert scene.record("r1").last_message == "FailedMount: timed out"
    scene.backend.observations[name] = Observation(
        phase=Phase.WAITING, cause=Cause.START_FAILED, reason=UNCLAIMED, message=f"its runner {REFUSED}"
    )
    scene.round()
    noted = scene.record("r1")
    assert noted.last_message == f"Unclaimed: its runner {REFUSED}", "another reason for the same cause is news"
    scene.round()
    assert scene.record("r1").version == noted.version
    ended = scene.update("r1", lambda record, now: transitions.tick(record, now + 60))
    assert ended.state is State.CRASHED
    assert ended.outcome is not None
    assert (ended.outcome.cause, ended.outcome.reason) == (Cause.START_FAILED, "start_within")
    assert REFUSED in ended.outcome.message
