"""Words for people about runs on a real cluster: why they wait, who watches them, and what was left of a crash."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatcher import Cause, NotFinished, Run, RunCrashed, State
from tests.cloud import flows
from tests.cloud.sandbox import SMALL, Sandbox
from tests.integration.workers import KEYS
from tests.unit.command import call

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def worker(sandbox: Sandbox) -> None:
    sandbox.start_worker()


@pytest.fixture(autouse=True)
def _settings(sandbox: Sandbox, worker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect commands in this process to the sandbox's server."""
    monkeypatch.setenv("DISPATCHER__URL", sandbox.server.url)
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps(KEYS))


def shown(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def expect_reason(sandbox: Sandbox, run: Run[Any], words: str) -> None:
    """Wait until ``list`` tells why a run waits; the other places tell the same."""

    def listed() -> str:
        [line] = [line for line in shown("list", "--full").splitlines() if line.startswith(run.id)]
        return line if words in line else ""

    sandbox.wait_until(listed, f"{words!r} in the list")
    assert words in shown("show", run.id)
    assert words in shown("events", run.id)
    assert words in shown("explain", run.id)
    assert words in json.loads(shown("show", run.id, "--json"))["waiting"]
    with pytest.raises(NotFinished, match=words):
        run.result(timeout=0.1)
    assert "(not among the live workers)" not in shown("explain", run.id)
    [line] = [line for line in shown("show", run.id).splitlines() if line.startswith("worker ")]
    assert " (shard kubernetes/" in line


def test_an_image_that_cannot_be_pulled(sandbox: Sandbox) -> None:
    image = "localhost:1/nobody/flows:9"
    run = sandbox.submit(flows.add, {"a": 1, "b": 2}, environment={"image": image})
    expect_reason(sandbox, run, "ErrImagePull: ")
    sandbox.wait_until(lambda: run.state is State.PENDING, "the wait")
    show = shown("show", run.id)
    assert image in show
    assert f"namespace    {sandbox.name}" in show
    assert "kind: Job" not in show
    assert "kind: Job" in shown("show", run.id, "--request")
    waits = [event for event in run.events() if event.kind == "waiting"]
    assert len(waits) <= 3, "ErrImagePull and ImagePullBackOff alternate, and are told once each"
    run.cancel()
    sandbox.expect_end(run, State.CANCELLED)


def test_a_pod_for_which_no_node_has_room(sandbox: Sandbox) -> None:
    run = sandbox.submit(flows.add, {"a": 1, "b": 2}, environment={"resources": {"requests": {"cpu": "500"}}})
    expect_reason(sandbox, run, "Unschedulable: ")
    run.cancel()
    sandbox.expect_end(run, State.CANCELLED)


def test_a_crash_report(sandbox: Sandbox, image: str) -> None:
    """Its side-car and its init container have printed; the flow's process is gone without a report."""

    def container(name: str, *lines: str) -> dict[str, Any]:
        return {"name": name, "image": image, "resources": SMALL, "command": ["sh", "-c", "; ".join(lines)]}

    init = container("setup", "echo prepared the ground")
    side = container("proxy", "trap exit TERM", "echo upstream is gone", "sleep 3600 & wait")
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": {"initContainers": [init], "containers": [{"name": "flow"}, side]}}},
    }
    run = sandbox.submit(flows.exit_process, {"code": 3}, environment={"job_spec": job})
    assert isinstance(run.exception(timeout=90), RunCrashed)

    def report() -> str:
        error = sandbox.client.get(run.id).exception(timeout=0)
        assert isinstance(error, RunCrashed)
        return error.report

    text = sandbox.wait_until(report, "the report")
    assert "  flow: terminated, Error, exit code 3" in text
    assert "  init/setup: terminated, Completed, exit code 0" in text
    assert "  proxy: " in text
    assert "last lines of proxy:\n  upstream is gone" in text
    assert "last lines of init/setup:\n  prepared the ground" in text
    assert "upstream is gone" in shown("show", run.id)
    assert "upstream is gone" in shown("explain", run.id)
    sandbox.expect_end(run, State.CRASHED, Cause.RESULT_MISSING)
