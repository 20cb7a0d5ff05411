"""The runner as PID 1 of a real container, in the project's own image: read-only root, no capability, no root user."""

from __future__ import annotations

import datetime
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import DockerStorage, context, flow
from dispatcher.runner.container.report import ReportKind
from dispatcher.runner.container.termination_message import TerminationMessage
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.states import Cause
from tests.conftest import Server
from tests.integration.docker_engine import docker, runner_image
from tests.integration.runners import AssignedRun
from tests.integration.workers import Bench
from tests.waiting import wait_until

__all__ = ["runner_image"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(590)]

#: Seconds by which the runner image may be slower than a bare Python until its claim; the benchmark holds it to 0.3.
SLOW_MACHINE = 3.0


@flow
def look() -> list[int]:
    print("in the container")  # noqa: T201 - what it prints is what is tested
    return [os.getuid(), os.getppid()]


@flow
def wait() -> None:
    print("waits", flush=True)  # noqa: T201
    time.sleep(600)


@flow
def eat() -> int:
    eaten = [bytearray(os.urandom(1) * 2**20) for _ in range(4096)]
    return len(eaten)


@flow
def leaves_orphans() -> int:
    """Zombies that PID 1 doesn't reap would stay for ever."""
    for _ in range(5):
        subprocess.run(["sh", "-c", "sleep 0.1 &"], check=True)
    time.sleep(1)
    states = [Path(stat).read_text().rpartition(")")[2].split()[0] for stat in Path("/proc").glob("[0-9]*/stat")]
    return states.count("Z")


def farewell() -> None:
    print(f"on_exit: {context.state}")  # noqa: T201


class Container:
    """A container of a run."""

    def __init__(self, image: str, assigned: AssignedRun, server: Server, *options: str) -> None:
        self.name = f"runner-{secrets.token_hex(4)}"
        self._message = assigned.directory / "words"
        self._message.touch()
        self._message.chmod(0o666)
        file = assigned.directory / "secrets.json"
        file.write_text(json.dumps(assigned.secrets))
        file.chmod(0o644)
        variables = {
            **assigned.variables,
            "DISPATCHER__RUN__SECRETS_FILE": "/secrets.json",
            "DISPATCHER__RUN__LAST_WORDS": "/dev/termination-log",
            "DISPATCHER__RUN__GRACE": "9",
            "DISPATCHER__RUN__UID": "pod",
        }
        mounts = [
            f"{file}:/secrets.json:ro",
            f"{self._message}:/dev/termination-log",
            f"{server.directory}:{server.directory}",
        ]
        docker(
            "run", "-d", "--name", self.name, "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/home/flow",
            "--cap-drop", "ALL", "--network", "none",
            *(word for mount in mounts for word in ("-v", mount)),
            *(word for name, value in variables.items() for word in ("-e", f"{name}={value}")),
            *options, image,
        )  # fmt: skip

    def wait(self) -> int:
        """Wait for its exit, and return the code."""
        return int(docker("wait", self.name, timeout=120).stdout)

    @property
    def output(self) -> str:
        """Its output so far."""
        done = docker("logs", self.name)
        return done.stdout + done.stderr

    @property
    def message(self) -> TerminationMessage | None:
        """Its termination message."""
        return TerminationMessage.parse(self._message.read_text())


Start = Callable[..., tuple[AssignedRun, Container]]


@pytest.fixture
def start(bench: Bench, runner_image: str, server: Server, tmp_path: Path) -> Iterator[Start]:
    started: list[Container] = []
    before = server.directory.stat().st_mode
    server.directory.chmod(0o755)
    server.socket.chmod(0o777)  # for the user of the image

    def launch(body: Any, *docker_options: str, **options: Any) -> tuple[AssignedRun, Container]:
        image = options.pop("image", runner_image)
        assigned = AssignedRun(bench, tmp_path, body, **options)
        started.append(Container(image, assigned, server, *docker_options))
        return assigned, started[-1]

    try:
        yield launch
    finally:
        server.directory.chmod(before)
        for container in started:
            print(container.output)  # noqa: T201 - pytest shows it where a test failed
            docker("rm", "-f", container.name)


def test_a_flow_runs_under_a_parent_that_is_pid_1(start: Start) -> None:
    assigned, container = start(look)
    assert container.wait() == 0
    outcome = assigned.report_of(ReportKind.EXITED).outcome
    assert outcome.result is not None, outcome
    assert outcome.result.inline == "[10001,1]"
    assert assigned.record.holder.startswith("pod:")
    assert "in the container" in container.output
    assert container.message is not None
    assert container.message.reported


def test_a_flow_of_the_image_runs_in_it(start: Start, runner_image: str) -> None:
    storage = DockerStorage(base_image=runner_image, local_image=True)
    storage.add_flow(look)
    storage.build()
    try:
        assigned, container = start(look, storage=storage, image=storage.image)
        assert container.wait() == 0
        outcome = assigned.report_of(ReportKind.EXITED).outcome
        assert outcome.result is not None, outcome
        assert outcome.result.inline == "[10001,1]"
    finally:
        docker("rmi", "-f", storage.name)


def test_docker_stop_is_heard(start: Start) -> None:
    assigned, container = start(wait, on_exit=farewell)
    wait_until(lambda: "waits" in container.output, "the flow's start", timeout=60)
    begun = time.monotonic()
    docker("stop", "-t", "9", container.name)
    print(f"docker stop took {time.monotonic() - begun:.1f} s of 9")  # noqa: T201
    assert container.wait() == 143
    report = assigned.report_of(ReportKind.EXITED)
    assert (report.outcome.cause, report.exit_call) == (Cause.PREEMPTED, ExitCall.CALLED)
    assert "on_exit: CRASHED" in container.output


def test_out_of_memory(start: Start) -> None:
    """On cgroup v1 only the flow's process dies, and its parent reports the cause; on v2 the whole container dies."""
    assigned, container = start(eat, "--memory", "192m", "--memory-swap", "192m")
    assert container.wait() == 137
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return
    outcome = assigned.report_of(ReportKind.DIED).outcome
    assert (outcome.cause, outcome.exit_code) == (Cause.OOM_KILLED, 137)
    assert container.message is not None
    assert (container.message.cause, container.message.reported) == ("oom_killed", True)


def test_orphans_are_reaped(start: Start) -> None:
    assigned, container = start(leaves_orphans)
    assert container.wait() == 0
    value = assigned.report_of(ReportKind.EXITED).outcome.result
    assert value is not None
    assert value.inline == "0"


def test_its_claim_comes_soon(start: Start) -> None:
    """The runner's share of the start; ``benchmarks/parts/container.py`` measures it apart from the engine's."""
    assigned, container = start(look)
    assert container.wait() == 0
    begun = docker("inspect", "-f", "{{.State.StartedAt}}", container.name).stdout.strip()
    started = datetime.datetime.fromisoformat(begun[:26] + "+00:00").timestamp()
    claimed = assigned.record.started_at
    assert claimed is not None
    print(f"container started to attempt claimed: {(claimed - started) * 1000:.0f} ms")  # noqa: T201
    assert claimed - started < SLOW_MACHINE
