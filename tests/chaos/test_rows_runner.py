"""Rows 31 and 32 of the fault matrix: runners die, print and give back too much; runs are cancelled at any moment."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dispatcher import context, flow
from dispatcher.records.logs import Line
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import from_value
from tests.chaos.conftest import ChaosServer
from tests.chaos.deployment import Deployment
from tests.chaos.flows import write_mark
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BACKENDS = ["local", "fake"]
MB = 2**20

#: Seconds. No worker dies here, and a busy machine must not make one look dead.
LEASE = 6.0


@pytest.fixture(scope="module")
def deployment(chaos_server: ChaosServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    with Deployment(
        chaos_server.url,
        chaos_server.port,
        folder,
        backends=BACKENDS,
        drain=0.5,
        timing={"lease": LEASE},
        environ={"DISPATCHER__LIMITS__RESULT": str(50 * MB)},
    ) as deployment:
        yield deployment
        deployment.torn_down()


@flow
def prints(megabytes: int) -> int:
    """Prints very much at once, in lines of 10 kB."""
    line = "x" * 9_999
    for _ in range(megabytes * 100):
        print(line)  # noqa: T201 - what it prints is what is tested
    print("the last line")  # noqa: T201
    return int(context.attempt or 0)


@flow
def gives_back(folder: str, megabytes: int) -> bytes:
    write_mark(folder, "flow")
    return b"x" * (megabytes * MB)


#: Where a runner dies (a failpoint, or the flow's own way), and how its run has ended then.
#: After the outcome is stored or reported, death keeps it.
DEATHS = [
    ("local", "attempt.claimed", Cause.KILLED),
    ("local", "dies", Cause.KILLED),
    ("local", "attempt.ran", Cause.KILLED),
    ("local", "attempt.settled", None),
    ("local", "attempt.finished", None),
    ("fake", "container.claimed", Cause.KILLED),
    ("fake", "dies", Cause.KILLED),
    ("fake", "container.reporting", Cause.KILLED),
]


@pytest.mark.row(31)
@pytest.mark.parametrize(("backend", "where", "cause"), DEATHS)
def test_row_31_a_runner_dies(deployment: Deployment, backend: str, where: str, cause: Cause | None) -> None:
    """At its start, under way, with a result that nobody has yet, and after that: the right class, once."""
    if where == "dies":
        [run_id] = deployment.submit(backend=backend, way="dies", retries=0)
    else:
        run_id = deployment.armed(where, "exit137", backend=backend, retries=0)
    deployment.settle(timeout=90)
    print(f"ended after {deployment.took:.1f} s")  # noqa: T201
    record = deployment.bench.record(run_id)
    if where != "dies":  # a run that is over may be seen so before its runner dies
        wait_until(lambda: deployment.fired(run_id), f"the failpoint {where}", timeout=30)
    assert record.outcome is not None
    assert (record.attempt, record.outcome.cause) == (1, cause)
    assert record.state is (State.SUCCEEDED if cause is None else State.CRASHED)
    if cause is not None:
        assert record.outcome.exit_code == 137


@pytest.mark.row(31)
@pytest.mark.parametrize("backend", BACKENDS)
def test_row_31_a_burst_of_lines(deployment: Deployment, backend: str) -> None:
    """200 MB: the first 10 MB are kept, then a gap that says how much is missing, and the last lines."""
    environment = deployment.environment(backend)
    deployment.runs.append(run_id := deployment.bench.submit(prints, {"megabytes": 200}, environment=environment))
    deployment.settle(timeout=240)
    print(f"200 MB of lines took {deployment.took:.1f} s")  # noqa: T201
    lines = _lines(deployment, run_id)
    shown = [line for line in lines if line.stream != "gap"]
    gaps = [line.text for line in lines if line.stream == "gap"]
    missing = sum(int(text.partition(" lines are missing")[0].replace(",", "")) for text in gaps)
    assert deployment.bench.record(run_id).state is State.SUCCEEDED
    assert sum(len(line.text) for line in shown) <= 11 * MB
    assert "the last line" in [line.text for line in shown]
    assert [line.number for line in lines] == sorted({line.number for line in lines})
    assert gaps
    assert len(shown) + missing == 20_001


def _lines(deployment: Deployment, run_id: str) -> list[Line]:
    lines, cursor = deployment.bench.records.logs.read(run_id)
    while True:
        more, cursor = deployment.bench.records.logs.read(run_id, after=cursor)
        if not more:
            return lines
        lines += more


@pytest.mark.row(31)
@pytest.mark.parametrize("backend", BACKENDS)
def test_row_31_a_result_of_100_megabytes(deployment: Deployment, backend: str) -> None:
    """Above the limit it is refused, and the run says why; below, it arrives."""
    environment = deployment.environment(backend)
    runs = [
        deployment.bench.submit(
            gives_back, {"folder": str(deployment.folder), "megabytes": size}, environment=environment
        )
        for size in (100, 40)
    ]
    ended = [deployment.bench.ended(run_id, timeout=200) for run_id in runs]
    refused, arrived = (record.outcome for record in ended)
    assert [record.state for record in ended] == [State.FAILED, State.SUCCEEDED]
    assert refused is not None
    assert "are more than the limit of 52,428,800 bytes" in refused.message
    assert arrived is not None
    assert arrived.result is not None
    seal = deployment.bench.keys.seal(ended[1])
    assert len(from_value(arrived.result, get=deployment.bench.records.blobs.get, seal=seal)) == 40 * MB
    deployment.runs += runs[:1]
    deployment.others += runs[1:]
    deployment.settle()


Cancelled = Callable[[Deployment, str], str]


def _frozen_at(name: str) -> Cancelled:
    """A run whose process stands still at a failpoint for a while."""
    return lambda deployment, backend: deployment.armed(name, "freeze:5", backend=backend)


def _repeated_later(deployment: Deployment, backend: str) -> str:
    later = Retry(3, delay=60.0, on={Cause.USER_ERROR})
    return deployment.submit(backend=backend, way="raises", retries=later)[0]


#: A state to be cancelled in, on which backend, and how a run comes to it and stays there.
STATES: list[tuple[State, str, Cancelled]] = [
    (State.QUEUED, "local", lambda deployment, backend: deployment.unrung().id),
    (State.CLAIMED, "fake", lambda deployment, backend: deployment.claimed(backend)),
    (State.PROVISIONING, "fake", _frozen_at("provision.intended")),
    (State.PENDING, "fake", lambda deployment, backend: _never_started(deployment)),
    (State.RUNNING, "local", lambda deployment, backend: deployment.submit(backend=backend, way="waits")[0]),
    (State.RUNNING, "fake", lambda deployment, backend: deployment.submit(backend=backend, way="waits")[0]),
    (State.AWAITING_RETRY, "local", _repeated_later),
    (State.AWAITING_RETRY, "fake", _repeated_later),
]


def _never_started(deployment: Deployment) -> str:
    """A run whose container waits for its image."""
    from backends.fake import FakeEnvironment
    from tests.chaos.flows import marked

    environment = FakeEnvironment(deployment.service, "image_pull")
    deployment.runs.append(
        run_id := deployment.bench.submit(marked, {"folder": str(deployment.folder)}, environment=environment)
    )
    return run_id


@pytest.mark.row(32)
@pytest.mark.parametrize(("state", "backend", "make"), STATES, ids=lambda case: "" if callable(case) else str(case))
def test_row_32_cancelled_in_a_state(deployment: Deployment, state: State, backend: str, make: Cancelled) -> None:
    """Asked twice, and once more after its end: one terminal state, infrastructure gone."""
    run_id = make(deployment, backend)
    deployment.bench.until(run_id, lambda record: record.state is state, f"the state {state}")
    states: list[State] = []

    def cancel(record: Record, now: float) -> Change | None:
        states.append(record.state)
        return transitions.request_cancel(record, now)

    deployment.bench.records.runs.update(run_id, cancel)
    deployment.bench.records.runs.update(run_id, cancel)
    record = deployment.bench.ended(run_id, timeout=60)
    version = record.version
    deployment.bench.records.runs.update(run_id, cancel)
    assert states[0] is state
    assert record.state is State.CANCELLED
    deployment.settle()
    deployment.torn_down()
    assert deployment.bench.record(run_id).state is State.CANCELLED
    assert deployment.bench.record(run_id).exit_call is not ExitCall.BEGUN
    assert version <= deployment.bench.record(run_id).version


@pytest.mark.row(32)
@pytest.mark.parametrize("backend", BACKENDS)
def test_row_32_a_cancel_races_the_end(deployment: Deployment, backend: str) -> None:
    """Whichever comes first, there is one end, and it stays."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    count, seconds = (12, 0.2) if backend == "local" else (4, 1.0)  # a container hears of it a poll later
    runs = deployment.submit(count, backend=backend, seconds=seconds)
    waits = {run_id: chance.uniform(0.0, 1.5 * seconds) for run_id in runs}

    def cancel(run_id: str) -> None:
        deployment.started([run_id])
        end = time.monotonic() + waits[run_id]
        wait_until(lambda: time.monotonic() > end, "the moment", timeout=10)
        deployment.bench.records.runs.update(run_id, transitions.request_cancel)

    threads = [threading.Thread(target=cancel, args=(run_id,)) for run_id in runs for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = {record.id: record for record in deployment.settle(timeout=90)}
    states = [records[run_id].state for run_id in runs]
    print(f"{states.count(State.CANCELLED)} of {len(states)} were cancelled")  # noqa: T201
    assert set(states) <= {State.CANCELLED, State.SUCCEEDED}
    deployment.torn_down()
    assert [deployment.bench.record(run_id).state for run_id in runs] == states
