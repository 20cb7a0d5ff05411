"""A node that is lost and comes back: row 27 of the fault matrix."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dispatcher import Cause, Retry, Run
from dispatcher.runs.events import Event
from tests.cloud import flows, k8s
from tests.cloud.fake_node import FakeNode
from tests.cloud.sandbox import Sandbox

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(400)]

#: Seconds without a heartbeat of a runner, which sends one every 10 s.
NODE_LOST = 15.0

#: Seconds for which pods tolerate an unreachable node: longer than the node keeps its taint once it is back. Otherwise
#: the next attempt, which is scheduled there at once, would be evicted again.
TOLERATION = 8


@pytest.fixture(scope="module")
def node(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    """Fake node of this module, and a worker."""
    folder = tmp_path_factory.mktemp("node")
    with FakeNode(f"{sandbox.name}-fake", folder, k8s.NamespaceAdmin(sandbox.name)) as fake_node:
        sandbox.start_worker(node_lost=NODE_LOST)
        yield fake_node


def exits(run: Run[object]) -> list[Event]:
    """Return the events of its attempts' ends."""
    return [event for event in run.events() if event.kind == "exited"]


@pytest.mark.row(27)
def test_a_node_is_lost_and_comes_back(sandbox: Sandbox, node: FakeNode) -> None:
    """Once node and runner are silent, the attempt ends, its teardown stays pending, and it is retried. The resumed
    runner is fenced, and is removed when the node is back."""
    run = sandbox.submit(
        flows.succeed_on_retry,
        {"seconds": 300},
        environment={"job_spec": node.job(toleration_seconds=TOLERATION)},
        retries=Retry(1, on={"node_lost"}),
    )
    sandbox.wait_until_started(run, event="attempt 1")
    lost_at = time.monotonic()
    node.disconnect()
    (lost,) = sandbox.wait_until(lambda: exits(run), "the attempt's end", timeout=180)
    print(f"node_lost after {time.monotonic() - lost_at:.0f} s: {lost.data}")  # noqa: T201
    assert lost.data["cause"] == Cause.NODE_LOST
    pending = f"teardown pending: node {sandbox.name}-fake"
    sandbox.wait_until(lambda: pending in "\n".join(sandbox.client.explain(run)), pending)
    node.resume()
    node.reconnect()
    last = run.result(timeout=120)  # 2, or more if the taint stayed for longer
    assert last >= 2
    sandbox.expect_nothing_left(run)
    causes = [event.data.get("cause") for event in exits(run)]
    assert (causes[0], causes[-1], set(causes)) == (Cause.NODE_LOST, None, {Cause.NODE_LOST, None})
    assert [sandbox.server.count_of(run, f"attempt {n}") for n in (1, last)] == [1, 1]
