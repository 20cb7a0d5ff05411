"""A node that is lost for good as far as anybody knows, and comes back all the same: row 27 of the fault matrix."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dispatcher import Cause, Retry, Run
from dispatcher.runs.events import Event
from tests.cloud import flows, k8s
from tests.cloud.fake_node import GhostNode
from tests.cloud.sandbox import Estate

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

#: Seconds of a runner's silence; it gives a sign of life every 10 s.
NODE_LOST = 15.0

#: Seconds that pods stay on a node out of reach: for longer than it keeps its taint once it is back, lest the next
#: attempt, scheduled there at once, is put out again.
STAYS = 8


@pytest.fixture(scope="module")
def node(estate: Estate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GhostNode]:
    """One of this module's own, and a worker."""
    folder = tmp_path_factory.mktemp("node")
    with GhostNode(f"{estate.name}-ghost", folder, k8s.Driver(estate.name)) as found:
        estate.worker(node_lost=NODE_LOST)
        yield found


def exits(run: Run[object]) -> list[Event]:
    """The ends of its attempts."""
    return [event for event in run.events() if event.kind == "exited"]


@pytest.mark.row(27)
def test_a_node_is_lost_and_comes_back(estate: Estate, node: GhostNode) -> None:
    """Once node and runner are silent the attempt ends, its teardown stays open and it is repeated; what wakes up on
    the node is fenced, and goes when the node is there again."""
    run = estate.submit(
        flows.at_the_second_try,
        {"seconds": 300},
        environment={"job_spec": node.job(stays=STAYS)},
        retries=Retry(1, on={"node_lost"}),
    )
    estate.begun(run, what="attempt 1")
    began = time.monotonic()
    node.vanish()
    (lost,) = estate.until(lambda: exits(run), "the attempt's end", timeout=180)
    print(f"node_lost after {time.monotonic() - began:.0f} s: {lost.data}")  # noqa: T201
    assert lost.data["cause"] == Cause.NODE_LOST
    pending = f"teardown pending: node {estate.name}-ghost"
    estate.until(lambda: pending in "\n".join(estate.client.explain(run)), pending)
    node.wake()
    node.come_back()
    last = run.result(timeout=120)  # 2, or more where its taint was there for longer
    assert last >= 2
    estate.nothing_left(run)
    causes = [event.data.get("cause") for event in exits(run)]
    assert (causes[0], causes[-1], set(causes)) == (Cause.NODE_LOST, None, {Cause.NODE_LOST, None})
    assert [estate.server.noted(run, f"attempt {n}") for n in (1, last)] == [1, 1]
