"""Stops of pods on a real cluster: cancels at any moment, containers that ignore SIGTERM, and who sent it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher import Cause, Run, RunCrashed, State
from tests.cloud import flows, k8s
from tests.cloud.sandbox import SMALL, Sandbox
from tests.integration.workers import Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

#: Cancels in a pod's first moments; the long form has 50.
CANCELS = 50 if os.environ.get("CHAOS") == "long" else 8
SPREAD = 2.0  # seconds after the pod's first sight over which they are spread
PROMPT = 5.0  # seconds within which such a cancel has ended the run

HOLD = {"seconds": 300}
IGNORES_SIGTERM = [
    "python3",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
]
NEVER = {"exec": {"command": ["false"]}}


@pytest.fixture(scope="module", autouse=True)
def worker(sandbox: Sandbox) -> Worker:
    return sandbox.start_worker(stop_grace=10.0, on_exit_timeout=60.0)


def job(flow: Mapping[str, Any] | None = None, *others: Mapping[str, Any], **pod: Any) -> dict[str, Any]:
    """Return the environment of a Job with these fields of the flow's container, more containers, and of the pod."""
    containers = [{"name": "flow", **(flow or {})}, *others]
    spec = {"template": {"spec": {"containers": containers, **pod}}}
    return {"job_spec": {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}}


def other(image: str, command: list[str], name: str = "other", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": image, "command": command, "resources": SMALL, **fields}


def seconds_until_gone(sandbox: Sandbox, run: Run[Any]) -> float:
    begun = time.monotonic()
    sandbox.wait_until(lambda: not sandbox.pods(run), f"the end of the pods of {run.id}", timeout=120)
    return time.monotonic() - begun


def cancel_after_start(sandbox: Sandbox, delay: float) -> tuple[float, State]:
    """Cancel a run so many seconds after its Job was created; return the seconds until its end."""
    run = sandbox.submit(flows.sleep, HOLD)
    wait_until(lambda: run.state in {State.PENDING, State.RUNNING}, "its Job", timeout=60)
    due = time.monotonic() + delay
    wait_until(lambda: time.monotonic() >= due, "the moment of the cancel", every=0.01)
    begun = time.monotonic()
    run.cancel()
    run.wait(timeout=150)
    return time.monotonic() - begun, run.state


def container_started(sandbox: Sandbox, run: Run[Any], name: str = "flow") -> bool:
    statuses = [status for pod in sandbox.pods(run) for status in pod["status"].get("containerStatuses") or ()]
    return any(status["name"] == name and status["state"].get("running") for status in statuses)


def test_a_cancel_in_a_pods_first_seconds_does_not_wait_for_its_grace(sandbox: Sandbox) -> None:
    ends = [cancel_after_start(sandbox, SPREAD * number / CANCELS) for number in range(CANCELS)]
    print([round(seconds, 1) for seconds, _ in ends])  # noqa: T201
    assert {state for _, state in ends} == {State.CANCELLED}
    assert max(seconds for seconds, _ in ends) <= PROMPT, ends


#: A module that Python imports before anything else, while SIGTERM has no handler, and that takes long.
SLOW = "import time; time.sleep(3)"


def test_a_cancel_before_the_runner_handles_sigterm(sandbox: Sandbox, image: str) -> None:
    write = f"import pathlib; pathlib.Path('/slow/sitecustomize.py').write_text({SLOW!r})"
    mounts = [{"name": "slow", "mountPath": "/slow"}]
    first = other(image, ["python3", "-c", write], volumeMounts=mounts)
    flow = {"env": [{"name": "PYTHONPATH", "value": "/slow"}], "volumeMounts": mounts}
    volume = {"name": "slow", "emptyDir": {}}
    run = sandbox.submit(flows.sleep, HOLD, environment=job(flow, initContainers=[first], volumes=[volume]))
    wait_until(lambda: container_started(sandbox, run), "its container", timeout=60)
    assert run.cancel()
    begun = time.monotonic()
    assert run.wait(timeout=150)
    print(f"ended in {time.monotonic() - begun:.1f} s")  # noqa: T201
    assert run.state is State.CANCELLED
    assert time.monotonic() - begun < 8
    assert sandbox.server.count_of(run, "ran") == 0


def test_a_cancel_does_not_wait_for_an_init_container_that_ignores_sigterm(sandbox: Sandbox, image: str) -> None:
    run = sandbox.submit(flows.sleep, HOLD, environment=job(initContainers=[other(image, IGNORES_SIGTERM)]))
    sandbox.wait_until(
        lambda: any(
            "running" in status["state"]
            for pod in sandbox.pods(run)
            for status in pod["status"].get("initContainerStatuses") or ()
        ),
        "its init container",
    )
    assert run.cancel()
    begun = time.monotonic()
    sandbox.expect_end(run, State.CANCELLED)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_side_car_that_ignores_sigterm_keeps_the_pod_for_the_users_grace(
    sandbox: Sandbox, image: str, native: bool, cancelled: bool
) -> None:
    side_car = other(image, IGNORES_SIGTERM)
    environment = (
        job(terminationGracePeriodSeconds=4, initContainers=[{**side_car, "restartPolicy": "Always"}])
        if native
        else job(None, side_car, terminationGracePeriodSeconds=4)
    )
    run = sandbox.submit(flows.sleep, {"seconds": 300 if cancelled else 0}, environment=environment)
    sandbox.wait_until_started(run)
    begun = time.monotonic()
    if cancelled:
        assert run.cancel()
    assert run.wait(timeout=30)
    ended = time.monotonic() - begun
    gone = seconds_until_gone(sandbox, run)
    print(f"native {native} cancelled {cancelled}: ended in {ended:.1f} s, gone {gone:.1f} s later")  # noqa: T201
    assert gone < 25


def expect_killed(sandbox: Sandbox, run: Run[Any]) -> RunCrashed:
    error = run.exception(timeout=120)
    assert isinstance(error, RunCrashed)
    assert error.cause is Cause.KILLED, (error.cause, str(error))
    return error


@pytest.mark.parametrize("kind", ["liveness", "startup"])
def test_a_failed_probe_kills_and_uses_up_retries(sandbox: Sandbox, kind: str) -> None:
    probe = {f"{kind}Probe": {**NEVER, "periodSeconds": 2, "failureThreshold": 3}}
    run = sandbox.submit(flows.sleep, HOLD, environment=job(probe), retries=1)
    error = expect_killed(sandbox, run)
    assert f"{kind.capitalize()} probe failed" in str(error)
    assert [str(event.kind) for event in run.events()].count("exited") == 2


def test_sigterm_from_within_the_pod_kills(sandbox: Sandbox, image: str) -> None:
    find = "import os, signal, time\n" + (
        "while True:\n"
        " for p in filter(str.isdigit, os.listdir('/proc')):\n"
        "  try:\n"
        "   c = open(f'/proc/{p}/cmdline').read()\n"
        "  except OSError: continue\n"
        "  if 'dispatcher.runner' in c and os.path.exists('/tmp/go'): os.kill(int(p), signal.SIGTERM)\n"
        " time.sleep(0.2)\n"
    )
    by_exec = sandbox.submit(flows.sleep, HOLD)
    shared = sandbox.submit(
        flows.sleep, HOLD, environment=job(None, other(image, ["python3", "-c", find]), shareProcessNamespace=True)
    )
    for run, container, command in ((by_exec, "flow", "kill 1"), (shared, "other", "touch /tmp/go")):
        sandbox.wait_until_started(run)
        pod = sandbox.pods(run)[0]["metadata"]["name"]
        begun = time.monotonic()
        k8s.kubectl("exec", pod, "-n", sandbox.name, "-c", container, "--", "sh", "-c", command)
        error = expect_killed(sandbox, run)
        print(f"{command}: {time.monotonic() - begun:.1f} s: {error}")  # noqa: T201


def test_a_cancel_that_is_ignored_says_when_it_ends(sandbox: Sandbox) -> None:
    run = sandbox.submit(flows.count_in_c)
    sandbox.wait_until_started(run)
    assert run.cancel()
    explained = sandbox.wait_until(
        lambda: [line for line in sandbox.client.explain(run) if "killed in" in line], "the time of its end"
    )
    print(explained)  # noqa: T201
