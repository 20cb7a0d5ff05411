"""Rows 31 and 32 of the fault matrix: runners die, print and give back too much; runs are cancelled at any moment."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dispatcher import context, flow
from dispatcher.records.base import Line
from dispatcher.runs import transitions
from dispatcher.runs.change import Change
from dispatcher.runs.record import ExitCall, Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import Cause, State
from dispatcher.serialization import from_value
from tests.chaos.conftest import ChaosServer
from tests.chaos.flows import write_mark
from tests.chaos.testbed import Testbed
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BACKENDS = ["local", "fake"]
MB = 2**20

#: Seconds. No worker dies here, and a busy machine must not make one look dead.
LEASE = 6.0


@pytest.fixture(scope="module")
def testbed(chaos_server: ChaosServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    folder = tmp_path_factory.mktemp("testbed")
    with Testbed(
        chaos_server.url,
        chaos_server.port,
        folder,
        backends=BACKENDS,
        drain=0.5,
        timing={"lease": LEASE},
        environ={"DISPATCHER__LIMITS__RESULT": str(50 * MB)},
    ) as one:
        yield one
        one.torn_down()


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
def test_row_31_a_runner_dies(testbed: Testbed, backend: str, where: str, cause: Cause | None) -> None:
    """At its start, under way, with a result that nobody has yet, and after that: the right class, once."""
    if where == "dies":
        [run_id] = testbed.submit(backend=backend, way="dies", retries=0)
    else:
        run_id = testbed.armed(where, "exit137", backend=backend, retries=0)
    testbed.settle(timeout=90)
    print(f"ended after {testbed.took:.1f} s")  # noqa: T201
    record = testbed.bench.record(run_id)
    if where != "dies":  # a run that is over may be seen so before its runner dies
        wait_until(lambda: testbed.fired(run_id), f"the failpoint {where}", timeout=30)
    assert record.outcome is not None
    assert (record.attempt, record.outcome.cause) == (1, cause)
    assert record.state is (State.SUCCEEDED if cause is None else State.CRASHED)
    if cause is not None:
        assert record.outcome.exit_code == 137


@pytest.mark.row(31)
@pytest.mark.parametrize("backend", BACKENDS)
def test_row_31_a_burst_of_lines(testbed: Testbed, backend: str) -> None:
    """200 MB: the first 10 MB are kept, then a gap that says how much is missing, and the last lines."""
    environment = testbed.environment(backend)
    testbed.runs.append(run_id := testbed.bench.submit(prints, {"megabytes": 200}, environment=environment))
    testbed.settle(timeout=240)
    print(f"200 MB of lines took {testbed.took:.1f} s")  # noqa: T201
    lines = _lines(testbed, run_id)
    kept = [line for line in lines if line.stream != "gap"]
    gaps = [line.text for line in lines if line.stream == "gap"]
    missing = sum(int(text.partition(" lines are missing")[0].replace(",", "")) for text in gaps)
    assert testbed.bench.record(run_id).state is State.SUCCEEDED
    assert sum(len(line.text) for line in kept) <= 11 * MB
    assert "the last line" in [line.text for line in kept]
    assert [line.number for line in lines] == sorted({line.number for line in lines})
    assert gaps
    assert len(kept) + missing == 20_001


def _lines(testbed: Testbed, run_id: str) -> list[Line]:
    found, cursor = testbed.bench.records.logs.read(run_id)
    while True:
        more, cursor = testbed.bench.records.logs.read(run_id, after=cursor)
        if not more:
            return found
        found += more


@pytest.mark.row(31)
@pytest.mark.parametrize("backend", BACKENDS)
def test_row_31_a_result_of_100_megabytes(testbed: Testbed, backend: str) -> None:
    """Above the limit it is refused, and the run says why; below, it arrives."""
    environment = testbed.environment(backend)
    runs = [
        testbed.bench.submit(gives_back, {"folder": str(testbed.folder), "megabytes": size}, environment=environment)
        for size in (100, 40)
    ]
    ended = [testbed.bench.ended(run_id, timeout=200) for run_id in runs]
    refused, arrived = (record.outcome for record in ended)
    assert [record.state for record in ended] == [State.FAILED, State.SUCCEEDED]
    assert refused is not None
    assert "are more than the limit of 52,428,800 bytes" in refused.message
    assert arrived is not None
    assert arrived.result is not None
    seal = testbed.bench.keys.seal(ended[1])
    assert len(from_value(arrived.result, get=testbed.bench.records.blobs.get, seal=seal)) == 40 * MB
    testbed.runs += runs[:1]
    testbed.others += runs[1:]
    testbed.settle()


Cancelled = Callable[[Testbed, str], str]


def _frozen_at(name: str) -> Cancelled:
    """A run whose process stands still at a failpoint for a while."""
    return lambda testbed, backend: testbed.armed(name, "freeze:5", backend=backend)


def _repeated_later(testbed: Testbed, backend: str) -> str:
    later = Retry(3, delay=60.0, on={Cause.USER_ERROR})
    return testbed.submit(backend=backend, way="raises", retries=later)[0]


#: A state to be cancelled in, on which backend, and how a run comes to it and stays there.
STATES: list[tuple[State, str, Cancelled]] = [
    (State.QUEUED, "local", lambda testbed, backend: testbed.unrung().id),
    (State.CLAIMED, "fake", lambda testbed, backend: testbed.claimed(backend)),
    (State.PROVISIONING, "fake", _frozen_at("provision.intended")),
    (State.PENDING, "fake", lambda testbed, backend: _never_started(testbed)),
    (State.RUNNING, "local", lambda testbed, backend: testbed.submit(backend=backend, way="waits")[0]),
    (State.RUNNING, "fake", lambda testbed, backend: testbed.submit(backend=backend, way="waits")[0]),
    (State.AWAITING_RETRY, "local", _repeated_later),
    (State.AWAITING_RETRY, "fake", _repeated_later),
]


def _never_started(testbed: Testbed) -> str:
    """A run whose container waits for its image."""
    from backends.fake import FakeEnvironment
    from tests.chaos.flows import marked

    environment = FakeEnvironment(testbed.service, "image_pull")
    testbed.runs.append(
        run_id := testbed.bench.submit(marked, {"folder": str(testbed.folder)}, environment=environment)
    )
    return run_id


@pytest.mark.row(32)
@pytest.mark.parametrize(("state", "backend", "make"), STATES, ids=lambda one: str(one) if not callable(one) else "")
def test_row_32_cancelled_in_a_state(testbed: Testbed, state: State, backend: str, make: Cancelled) -> None:
    """Asked twice, and once more after its end: one terminal state, infrastructure gone."""
    run_id = make(testbed, backend)
    testbed.bench.until(run_id, lambda record: record.state is state, f"the state {state}")
    found: list[State] = []

    def cancel(record: Record, now: float) -> Change | None:
        found.append(record.state)
        return transitions.request_cancel(record, now)

    testbed.bench.records.runs.update(run_id, cancel)
    testbed.bench.records.runs.update(run_id, cancel)
    record = testbed.bench.ended(run_id, timeout=60)
    version = record.version
    testbed.bench.records.runs.update(run_id, cancel)
    assert found[0] is state
    assert record.state is State.CANCELLED
    testbed.settle()
    testbed.torn_down()
    assert testbed.bench.record(run_id).state is State.CANCELLED
    assert testbed.bench.record(run_id).exit_call is not ExitCall.BEGUN
    assert version <= testbed.bench.record(run_id).version


@pytest.mark.row(32)
@pytest.mark.parametrize("backend", BACKENDS)
def test_row_32_a_cancel_races_the_end(testbed: Testbed, backend: str) -> None:
    """Whichever comes first, there is one end, and it stays."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    count, seconds = (12, 0.2) if backend == "local" else (4, 1.0)  # a container hears of it a poll later
    runs = testbed.submit(count, backend=backend, seconds=seconds)
    waits = {run_id: chance.uniform(0.0, 1.5 * seconds) for run_id in runs}

    def cancel(run_id: str) -> None:
        testbed.started([run_id])
        end = time.monotonic() + waits[run_id]
        wait_until(lambda: time.monotonic() > end, "the moment", timeout=10)
        testbed.bench.records.runs.update(run_id, transitions.request_cancel)

    threads = [threading.Thread(target=cancel, args=(run_id,)) for run_id in runs for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = {record.id: record for record in testbed.settle(timeout=90)}
    states = [records[run_id].state for run_id in runs]
    print(f"{states.count(State.CANCELLED)} of {len(states)} were cancelled")  # noqa: T201
    assert set(states) <= {State.CANCELLED, State.SUCCEEDED}
    testbed.torn_down()
    assert [testbed.bench.record(run_id).state for run_id in runs] == states
