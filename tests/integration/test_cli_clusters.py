"""``status`` and ``doctor`` say which worker serves which cluster."""

from __future__ import annotations

import json

import pytest

from dispatcher.records.redis import open_redis
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.routing import Offer
from tests.unit.command import call


@pytest.fixture
def two_clusters(server_url: str) -> None:
    """Two workers whose settings name one cluster, and whose API servers say that they are two."""
    records = open_redis(server_url)
    try:
        for number in (1, 2):
            data = {"supervises": ["kubernetes"], "places": {"kubernetes": {"kube-system": f"uid-{number}"}}}
            offer = Offer(backends=frozenset({"kubernetes"}))
            records.workers.announce(
                WorkerInfo(id=f"w{number}", host="h", pid=1, offer=offer, concurrency=1, started_at=1.0, data=data)
            )
    finally:
        records.close()


@pytest.mark.usefixtures("two_clusters")
def test_two_clusters_under_one_name(server_url: str) -> None:
    rows = [line.split() for line in call("status", "--url", server_url).stdout.splitlines()]
    assert ["CLUSTER", "IDENTITY", "WORKERS"] in rows
    assert [row for row in rows if row[:1] == ["kubernetes"]] == [
        ["kubernetes", "kube-system", "uid-1", "w1"],
        ["kubernetes", "kube-system", "uid-2", "w2"],
    ]
    workers = json.loads(call("status", "--url", server_url, "--json").stdout)["workers"]
    assert [worker["places"] for worker in workers] == [
        {"kubernetes": {"kube-system": "uid-1"}},
        {"kubernetes": {"kube-system": "uid-2"}},
    ]
    checked = call("doctor", "--url", server_url)
    assert checked.exit_code == 1
    assert (
        "clusters     several are served as kubernetes: w1 serves the one with kube-system uid-1; w2" in checked.stdout
    )
