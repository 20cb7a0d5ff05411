"""Every failpoint x kind of end x backend: whatever ends between two side effects, the invariants hold after recovery.

The cases are found in the source. All of them are played at once by a fixture; each test looks at its own. Rows 2, 3,
4, 5, 6 and 8 of the fault matrix are among them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dispatcher.client.subscription import Subscription
from dispatcher.errors import ServerUnavailable, Transient
from dispatcher.records.query import Query
from dispatcher.runs.record import Record
from dispatcher.support.failpoints import VARIABLE, FailpointError, arm, failpoint
from tests.chaos import checker, failpoint_scan
from tests.chaos.cases import KINDS, Case
from tests.chaos.conftest import ChaosServer
from tests.chaos.figures import Figures
from tests.chaos.matrix import Matrix
from tests.chaos.submitter import MAPPED
from tests.conftest import PYTHON
from tests.integration.workers import KEYS, ROOT

#: Not what it takes (three minutes on two busy cores), but far beyond.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

#: Passed by client processes alone, and only where the broker is another server.
OF_CLIENTS = {"submit.shared", "submit.stored", "blob.part"}
OF_ANOTHER_BROKER = {"bell.due", "bell.published"}

#: Passed on Kubernetes alone, between the objects of a Dask cluster: tests/unit/dask_kubernetes/test_failpoints.py.
OF_DASK = {name for name in failpoint_scan.found() if name.startswith("cluster.")}

NAMES = sorted(failpoint_scan.found().keys() - OF_DASK)
OF_WORKERS = sorted(set(NAMES) - OF_CLIENTS - OF_ANOTHER_BROKER)

#: What a client may die over: a failpoint and its passing.
CLIENTS = {"submit.shared": "", "submit.stored": "", "blob.part": "", "bell.published": "", "map": "@2"}
ENDS = ("exit137", "raise", "freeze:1.0", "reply_lost")


@pytest.fixture(scope="module")
def played(
    chaos_server: ChaosServer, long: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Matrix, list[Case]]]:
    """All cases of workers and containers, played."""
    matrix = Matrix(chaos_server.url, tmp_path_factory.mktemp("matrix"))
    try:
        with matrix:
            matrix.rehearse(OF_WORKERS)
            cases = matrix.cases(long=long)
            matrix.play(cases, timeout=1200)
        yield matrix, cases
    finally:
        matrix.close()


@pytest.fixture(scope="module")
def played_apart(
    chaos_server: ChaosServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Matrix, list[Case]]]:
    """An installation with another broker, and the cases of failpoints that only such a one passes."""
    matrix = Matrix(
        chaos_server.url.replace("db=0", "db=2"),
        tmp_path_factory.mktemp("apart"),
        workers=3,
        broker_url=chaos_server.url.replace("db=0", "db=1"),
    )
    try:
        with matrix:
            matrix.rehearse(OF_ANOTHER_BROKER)
            cases = matrix.cases(wanted=OF_ANOTHER_BROKER.__contains__)
            matrix.play(cases, timeout=600)
            print(matrix.summary(cases))  # noqa: T201
            yield matrix, cases
    finally:
        matrix.close()


def problems(cases: list[Case], name: str, kind: str) -> dict[str, list[str]]:
    """Return the violations of the cases of a failpoint and a kind of failure; there is at least one case."""
    mine = [case for case in cases if (case.name, case.kind) == (name, kind)]
    assert mine, f"no scenario comes by {name}: write one, or remove the failpoint"
    return {f"{case.backend or 'any'} {case.arm} {case.runs}": case.wrong for case in mine if case.wrong}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OF_WORKERS)
def test_an_end_at_a_failpoint(played: tuple[Matrix, list[Case]], name: str, kind: str) -> None:
    """I1, I3, I4, I6 and I7 for the runs of its cases."""
    assert problems(played[1], name, kind) == {}


def test_nothing_is_wrong_beside_the_cases(played: tuple[Matrix, list[Case]]) -> None:
    """I3 and I5 in the service's own ledger, and every run that came to no case."""
    assert played[0].wrong == []


def test_a_subscriber_hears_of_each_exit_once(played: tuple[Matrix, list[Case]]) -> None:
    """I4: one that no fault befalls needs no ids of events to tell."""
    matrix, _ = played
    received = [event for event in Subscription(matrix.records, "ledger", timeout=1.0) if event.kind == "exited"]
    finals = Counter(event.run_id for event in received if event.final)
    assert [event_id for event_id, n in Counter(event.id for event in received).items() if n > 1] == []
    assert {run_id: finals[run_id] for run_id in matrix.runs if finals[run_id] != 1} == {}


def test_no_secret_can_be_read_anywhere(played: tuple[Matrix, list[Case]], chaos_server: ChaosServer) -> None:
    """I8: neither the signing secret nor a run's key or token in Redis, in a worker's output or in the service."""
    matrix, _ = played
    files = [file for file in matrix.folder.rglob("*") if file.is_file()]
    run_keys = [matrix.bench.keys.attempt_seal(run_id, 1).key.hex() for run_id in matrix.runs]
    assert checker.leaks(chaos_server.url, [*KEYS.values(), *run_keys], files) == []


def test_no_key_is_left_after_retention(played: tuple[Matrix, list[Case]], chaos_server: ChaosServer) -> None:
    """I9, by the injected clock."""
    assert checker.left_after_retention(chaos_server.url) == []


def test_recovery_is_bounded(played: tuple[Matrix, list[Case]], figures: Figures) -> None:
    """I10: half of all faults are over within a takeover's length, and every run has ended (see its case)."""
    matrix, cases = played
    figures.say(matrix.summary(cases))
    figures.keep("matrix", **matrix.counts(cases))
    took = matrix.recoveries
    assert took[len(took) // 2] < 15.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(OF_ANOTHER_BROKER))
def test_an_end_at_a_failpoint_with_another_broker(
    played_apart: tuple[Matrix, list[Case]], name: str, kind: str
) -> None:
    matrix, cases = played_apart
    assert problems(cases, name, kind) == {}
    assert matrix.wrong == []


@dataclass(frozen=True)
class Clients:
    """Clients that died, by their keys: exit statuses, runs then, and runs once all had asked again."""

    statuses: dict[str, int]
    before: dict[str, list[Record]]
    after: dict[str, list[Record]]


@pytest.fixture(scope="module")
def died(played_apart: tuple[Matrix, list[Case]], chaos_server: ChaosServer) -> Clients:
    """Clients, each armed with one end at one failpoint; then one that asks for everything again."""
    matrix, _ = played_apart
    environ = {
        **os.environ,
        "DISPATCHER__URL": chaos_server.url.replace("db=0", "db=2"),
        "DISPATCHER__BROKER_URL": chaos_server.url.replace("db=0", "db=1"),
        "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
        "PYTHONPATH": str(ROOT),
    }
    command = [PYTHON, "-m", "tests.chaos.submitter", str(matrix.folder)]
    clients = {
        f"{name} {kind}": subprocess.Popen(
            [*command, f"{name} {kind}"],
            env={**environ, VARIABLE: f"{'submit.shared' if name == 'map' else name}={kind}{passing}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, passing in CLIENTS.items()
        for kind in ENDS
    }
    statuses = {key: client.wait(300) for key, client in clients.items()}
    before = by_key(matrix)
    again = subprocess.run([*command, *clients], env=environ, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    after = by_key(matrix)
    assert {key: sorted(ids) for key, ids in json.loads(again.stdout).items()} == {
        key: sorted(record.id for record in records) for key, records in after.items()
    }
    return Clients(statuses, before, after)


def by_key(matrix: Matrix) -> dict[str, list[Record]]:
    """All runs with an idempotency key, those of a map together."""
    by_key: dict[str, list[Record]] = {}
    for record in matrix.records.runs.find(Query(), limit=None):
        if record.key:
            by_key.setdefault(record.key.partition("[")[0], []).append(record)
    return by_key


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("name", list(CLIENTS))
def test_a_client_that_ends_at_a_failpoint(died: Clients, name: str, kind: str) -> None:
    """I2: what it asked for is there in full, or not at all; asking again gives the same runs, and no second one."""
    key, most = f"{name} {kind}", MAPPED if name == "map" else 1
    if kind.startswith("freeze") or (name == "bell.published" and kind != "exit137"):  # a lost ring is rung again
        status, accepted = 0, most
    else:
        status, accepted = -9 if kind == "exit137" else 1, {"submit.shared": 0, "blob.part": 0, "map": 500}.get(name, 1)
    assert died.statuses[key] == status
    assert len(died.before.get(key, ())) == accepted
    assert len(died.after[key]) == len({record.key for record in died.after[key]}) == most
    assert {record.id for record in died.before.get(key, ())} <= {record.id for record in died.after[key]}


def test_runs_of_clients_that_ended_end_well(died: Clients, played_apart: tuple[Matrix, list[Case]]) -> None:
    matrix, _ = played_apart
    mine = [records[0].id for key, records in died.after.items() if not key.startswith("map")]
    matrix.runs += mine
    assert matrix.drained(timeout=300) == set()
    assert matrix.violations(mine) == {}


class TestArming:
    """A failpoint does nothing, unless it is armed."""

    @pytest.fixture(autouse=True)
    def _disarm(self) -> Iterator[None]:
        yield
        arm("")

    def test_names_are_unique_literals(self) -> None:
        assert len(NAMES) > 30
        assert {name: n for name, n in failpoint_scan.found().items() if n > 1} == {}

    def test_unarmed(self) -> None:
        failpoint("anything.done")

    def test_a_list_fires_once_at_the_nth_passing(self) -> None:
        arm("a.done=raise@2;b.done=reply_lost")
        failpoint("a.done")
        with pytest.raises(ServerUnavailable):
            failpoint("b.done")
        with pytest.raises(FailpointError):
            failpoint("a.done")
        failpoint("a.done")

    def test_a_folder_fires_once_and_per_run(self, tmp_path: Path) -> None:
        (tmp_path / "fired").mkdir()
        (tmp_path / "a.done+r1").write_text("reply_lost")
        arm(str(tmp_path))
        failpoint("a.done", "r2")
        with pytest.raises(Transient):
            failpoint("a.done", "r1", lost=Transient)
        failpoint("a.done", "r1")
        assert len((tmp_path / "passed.jsonl").read_text().splitlines()) == 3

    def test_an_unknown_kind_is_an_error(self) -> None:
        arm("a.done=sleep")
        with pytest.raises(ValueError, match="unknown kind"):
            failpoint("a.done")
