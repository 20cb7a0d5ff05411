"""The names of a run's workers, the versions that they must share, and the messages about them."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from dispatcher.errors import InvalidSettings
from dispatcher.executors.dask_cluster.cluster import SchedulerEnd
from dispatcher.executors.dask_cluster.messages import ClusterLine, Messages
from dispatcher.executors.dask_cluster.tls import Tls
from dispatcher.executors.dask_cluster.versions import version_problem
from dispatcher.executors.dask_cluster.worker_names import WorkerNames
from dispatcher.runner.scheduler_end import outcome_of
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.states import Cause
from tests.waiting import wait_until


class Names(WorkerNames):
    """Names whose reports are kept."""

    def __init__(self, minimum: int) -> None:
        self.reports: list[WorkerReport] = []
        super().__init__(minimum, self.reports.append)


def test_the_first_workers_are_wanted_from_the_start() -> None:
    assert Names(2).report() == WorkerReport(wanted=("w1", "w2"))


def test_a_cluster_without_a_minimum_is_ready_at_once() -> None:
    assert Names(0).report() == WorkerReport(ready=True)


def test_a_cluster_is_ready_once_the_minimum_has_joined_and_stays_so() -> None:
    names = Names(2)
    names.join("w2")
    assert not names.ready
    names.join("w1")
    names.leave("w2", asked=False)
    assert names.ready
    assert [report.ready for report in names.reports] == [False, True, True]


def test_the_name_of_a_lost_worker_is_never_used_again() -> None:
    names = Names(1)
    names.join("w1")
    names.leave("w1", asked=False)
    names.add(2)
    names.drop(["w3"])
    names.add(1)
    assert names.report() == WorkerReport(wanted=("w2", "w4"), ready=True, lost=("w1",))


def test_a_worker_that_was_asked_to_leave_is_not_lost() -> None:
    names = Names(1)
    names.join("w1")
    names.leave("w1", asked=True)
    assert names.report() == WorkerReport(ready=True)


def test_the_latest_lost_workers_are_reported() -> None:
    names = Names(30)
    for number in range(1, 31):
        names.join(f"w{number}")
        names.leave(f"w{number}", asked=False)
    assert names.report().lost == tuple(f"w{number}" for number in range(11, 31))


def versions(**packages: Any) -> dict[str, Any]:
    return {
        "packages": {
            "python": "3.11.7.final.0", "dask": "2026.8.0", "distributed": "2026.8.0", "cloudpickle": "3.1.3",
            "numpy": "2.4.6", **packages,
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("package", "version", "words"),
    [
        ("python", "3.12.1.final.0", "Python 3.12.1 instead of 3.11.7"),
        ("dask", "2025.1.0", "dask 2025.1.0 instead of 2026.8.0"),
        ("distributed", None, "distributed none instead of 2026.8.0"),
        ("cloudpickle", "3.0", "cloudpickle 3.0 instead of 3.1.3"),
    ],
)
def test_a_worker_with_another_version_is_named_with_both(package: str, version: str | None, words: str) -> None:
    problem = version_problem("w2", versions(**{package: version}), versions())
    assert problem == (f"Dask worker w2 has other versions than the flow's container: {words}; run both from one image")


def test_other_packages_may_differ() -> None:
    assert version_problem("w2", versions(numpy="1.0"), versions()) == ""


def test_a_worker_that_tells_no_versions_has_others() -> None:
    assert "Python none instead of 3.11.7, dask none" in version_problem("w1", {}, versions())


def test_messages_that_nobody_reads_block_nobody() -> None:
    reader, writer = os.pipe()
    messages = Messages(writer)
    for number in range(30_000):
        messages.line(ClusterLine("w1", "stdout", f"line {number}".ljust(100)))
        messages.report(WorkerReport(wanted=(f"w{number + 1}",)))
    read = b""

    def ends() -> bool:
        nonlocal read
        read += os.read(reader, 2**20)
        return read.endswith(b"\n") and b'"w30000"' in read

    wait_until(ends, "the latest report")
    received = [json.loads(line) for line in read.splitlines()]
    assert received[0] == {"line": ["w1", "stdout", "line 0".ljust(100), None, None]}
    lines = [message["line"] for message in received if "line" in message]
    assert len(lines) < 30_000
    assert sum("lines of the Dask cluster are missing" in line[2] for line in lines) >= 1
    reports = [message["workers"]["wanted"] for message in received if "workers" in message]
    assert len(reports) < 30_000
    assert reports[-1] == ["w30000"]
    messages.close()
    os.close(writer)
    os.close(reader)


def test_messages_survive_a_reader_that_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    messages = Messages(writer)
    messages.line(ClusterLine("", "stderr", "unread"))
    messages.close()
    os.close(writer)


@pytest.mark.parametrize("missing", ["DISPATCHER__RUN__TLS_CERT", "DISPATCHER__RUN__TLS_KEY"])
def test_a_missing_path_of_the_certificate_is_named(missing: str) -> None:
    variables = {"DISPATCHER__RUN__TLS_CERT": "/c", "DISPATCHER__RUN__TLS_KEY": "/k"}
    assert Tls.of(variables) == Tls(cert="/c", key="/k")
    with pytest.raises(InvalidSettings, match=f"{missing}: not set"):
        Tls.of({**variables, missing: ""})


def end(code: int, *, started: bool = True, lines: tuple[str, ...] = ()) -> SchedulerEnd:
    return SchedulerEnd(code=code, started=started, lines=lines)


def test_a_scheduler_that_was_killed_for_want_of_memory() -> None:
    outcome = outcome_of(end(-signal.SIGKILL), oom_kills_before=-1)
    assert (outcome.cause, outcome.reason) == (Cause.OOM_KILLED, "OOMKilled")
    assert outcome.message.startswith("the scheduler of the run's Dask cluster was killed: out of memory")


def test_a_scheduler_that_was_killed_otherwise() -> None:
    outcome = outcome_of(end(-signal.SIGSEGV), oom_kills_before=-1)
    assert (outcome.cause, outcome.reason) == (Cause.KILLED, "SIGSEGV")


def test_a_scheduler_that_ended_by_itself_is_shown_with_its_last_lines() -> None:
    outcome = outcome_of(end(1, lines=("first", "second", "third", "last")), oom_kills_before=0)
    assert outcome.cause is Cause.KILLED
    assert outcome.message == (
        "the scheduler of the run's Dask cluster ended with exit code 1; its last lines: second | third | last"
    )


def test_a_scheduler_that_never_listened_failed_to_start() -> None:
    assert outcome_of(end(1, started=False), oom_kills_before=0).cause is Cause.START_FAILED
