"""``dispatcher down`` reports what it ends, what it waits for and what it leaves alone, and when it refuses."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PYTHON
from tests.integration.laptop import User, run
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

COMMAND = str(Path(PYTHON).with_name("dispatcher"))

FLOWS = """
import pathlib, time
from dispatcher import flow

@flow
def hold() -> None:
    pathlib.Path("holds").touch()
    time.sleep(600)
"""


@pytest.fixture
def worker(user: User) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that the user started separately."""
    log = user.home / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [COMMAND, "worker", "--label", "gpu"], env=user.environ, cwd=user.project, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: b"is ready" in log.read_bytes(), "the worker to be ready", timeout=60)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_by_force_it_says_what_it_ends(user: User, worker: subprocess.Popen[bytes]) -> None:
    (user.project / "flows.py").write_text(FLOWS)
    run_id = run(user, [COMMAND, "submit", "flows.py:hold"], DISPATCHER__WORKER__DRAIN="0.1").stdout.strip()
    wait_until((user.project / "holds").exists, "the flow to run", timeout=60)
    (ours,) = user.status().workers

    refused = run(user, [COMMAND, "down"])
    assert refused.returncode == 2
    assert "1 run is open" in refused.stderr

    done = run(user, [COMMAND, "down", "--force"])
    assert (done.returncode, done.stdout) == (0, "the laptop server is down\n")
    lines = done.stderr.splitlines()
    assert lines[0] == f"open: run {run_id} of flow hold, RUNNING"
    assert lines[1] == f"ending the worker of {ours.prefix}, process {ours.process.pid}"
    assert "waiting for at most 110 s" in lines[2]
    assert lines[3].startswith(f"left alone, without a server now: process {worker.pid} (")
    assert "worker --label" in lines[3]
    assert len(lines) == 4
    assert worker.poll() is None


def test_what_is_left_alone_is_named_without_force_too(user: User, worker: subprocess.Popen[bytes]) -> None:
    done = run(user, [COMMAND, "down"])
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert f"left alone, without a server now: process {worker.pid} (" in line
    assert run(user, [COMMAND, "down"]).stdout == "the laptop server was not running\n"


@pytest.mark.parametrize(
    "command", [["status"], ["up"], ["down"], ["down", "--force"], ["worker"], ["list"], ["gc"]], ids=" ".join
)
def test_the_laptop_server_ruled_out(command: list[str], user: User) -> None:
    done = run(user, [COMMAND, *command], DISPATCHER__EMBEDDED="false")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "set DISPATCHER__URL" in line
    assert "DISPATCHER__EMBEDDED=false rules out the laptop server" in line
    assert not user.state.exists()
