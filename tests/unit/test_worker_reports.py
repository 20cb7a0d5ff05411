"""Reports of a runner on the workers of its run's own cluster."""

from __future__ import annotations

import pytest

from dispatcher.errors import Malformed, SealBroken
from dispatcher.executors.dask_cluster.certificates import make_certificate
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.outcome import Outcome
from dispatcher.support.ids import new_id

TOKEN = "ab" * 32
WORKERS = WorkerReport(wanted=("w2", "w4"), connected=("w2",), ready=True, lost=("w1", "w3"))


def report(workers: WorkerReport | None, kind: ReportKind = ReportKind.WORKERS) -> Report:
    return Report(run_id=new_id(), attempt=1, kind=kind, outcome=Outcome(), workers=workers)


@pytest.mark.parametrize("kind", [ReportKind.WORKERS, ReportKind.ALIVE])
def test_a_report_carries_the_workers_that_the_runner_wants(kind: ReportKind) -> None:
    sent = report(WORKERS, kind)
    assert Report.from_entry(sent.to_entry(TOKEN), TOKEN) == sent


def test_a_report_of_a_run_without_a_cluster_has_no_workers() -> None:
    entry = report(None, ReportKind.ALIVE).to_entry(TOKEN)
    assert "workers" not in entry["body"]
    assert Report.from_entry(entry, TOKEN).workers is None


def test_a_report_with_a_forged_worker_is_refused() -> None:
    entry = report(WORKERS).to_entry(TOKEN)
    with pytest.raises(SealBroken):
        Report.from_entry({**entry, "body": entry["body"].replace("w4", "w5")}, TOKEN)


def test_a_report_with_a_name_that_is_none_is_malformed() -> None:
    with pytest.raises(Malformed, match="wanted must be names such as w1"):
        Report.from_entry(report(WorkerReport(wanted=("../w1",))).to_entry(TOKEN), TOKEN)


def test_each_certificate_is_another_one() -> None:
    first, second = make_certificate(), make_certificate()
    assert first.cert.startswith("-----BEGIN CERTIFICATE-----\n")
    assert first.key.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert {first.cert, first.key}.isdisjoint({second.cert, second.key})


def test_the_key_of_a_certificate_is_not_shown() -> None:
    assert "PRIVATE" not in repr(make_certificate())
