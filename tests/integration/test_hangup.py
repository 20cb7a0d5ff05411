"""SIGHUP, sent or caused by a closed terminal: workers drain, nothing restarts, and each command reports what it
does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher import flow
from dispatcher.runs.states import State
from tests.conftest import PYTHON
from tests.integration.laptop import User
from tests.integration.terminal import Terminal
from tests.integration.workers import KEYS, Bench, Worker
from tests.waiting import wait_until
from workers.pool.termination import pid_of

pytestmark = pytest.mark.integration

COMMAND = str(Path(PYTHON).with_name("dispatcher"))

StartWorker = Callable[..., Worker]


@flow
def on(path: str, seconds: float) -> str:
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    return "done"


@pytest.fixture(autouse=True)
def _hangups_are_heard() -> Iterator[None]:
    """Reset SIGHUP, which workers would inherit as ignored if these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def running(bench: Bench, path: Path, *, seconds: float) -> tuple[str, int]:
    """Start a run; return its id and the process of its flow."""
    run_id = bench.submit(on, {"path": str(path), "seconds": seconds})
    wait_until(lambda: path.exists() and path.read_text(), "the flow", timeout=30)
    return run_id, int(path.read_text())


@pytest.mark.parametrize(("seconds", "state"), [(2.0, State.SUCCEEDED), (60.0, State.CRASHED)])
def test_sighup_drains_and_starts_nothing_again(
    bench: Bench, start_worker: StartWorker, tmp_path: Path, seconds: float, state: State
) -> None:
    """Like SIGTERM, it gives the flow its time. Without a terminal, Celery itself would restart."""
    worker = start_worker(concurrency=1, drain=5.0)
    run_id, _ = running(bench, tmp_path / "on", seconds=seconds)
    worker.send(signal.SIGHUP)
    assert worker.wait(30) == 0
    assert "Shutting down: 1 flow is running" in worker.output
    assert "estarting" not in worker.output
    record = bench.ended(run_id)
    assert record.state is state
    assert bench.records.workers.live() == []


def test_a_closed_terminal_drains(bench: Bench, start_worker: StartWorker, terminal: Terminal, tmp_path: Path) -> None:
    worker = start_worker(concurrency=1, drain=5.0, ready=False, command=terminal.command("-m", "workers"))
    run_id, _ = running(bench, tmp_path / "on", seconds=2.0)
    terminal.close()
    assert worker.wait(30) == 0, "what can't be said any more is no failure"
    record = bench.ended(run_id)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)
    assert bench.records.workers.live() == []


def test_a_hangup_of_the_whole_service_leaves_flows_to_the_worker(
    bench: Bench, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Like systemd's SendSIGHUP, or `kill` with all pids."""
    worker = start_worker(concurrency=2, drain=10.0)
    run_id, pid = running(bench, tmp_path / "on", seconds=2.0)
    for child in worker.children:
        os.kill(child, signal.SIGHUP)
    worker.send(signal.SIGHUP)
    assert worker.wait(30) == 0
    record = bench.ended(run_id)
    assert (record.state, record.attempt, pid_of(record.holder)) == (State.SUCCEEDED, 1, pid)


def test_a_hangup_while_the_worker_starts_starts_nothing_again(bench: Bench, start_worker: StartWorker) -> None:
    """There is no gap between Celery's own handlers and ours while the pool forks."""
    worker = start_worker(ready=False)
    wait_until(lambda: worker.children, "its first pool process", timeout=60)
    worker.send(signal.SIGHUP)
    assert worker.wait(30) == 0
    assert bench.records.workers.live() == []


def test_under_nohup_a_hangup_is_nothing(
    bench: Bench, start_worker: StartWorker, terminal: Terminal, tmp_path: Path
) -> None:
    nohup = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    command = terminal.command("-c", nohup, PYTHON, "-m", "workers")
    worker = start_worker(concurrency=1, ready=False, command=command)
    running(bench, tmp_path / "before", seconds=0.0)
    terminal.close()
    running(bench, tmp_path / "after", seconds=0.0)
    assert worker.process.poll() is None


def test_dispatcher_run_leaves_its_run_alone(
    bench: Bench, server_url: str, start_worker: StartWorker, terminal: Terminal, tmp_path: Path
) -> None:
    start_worker(concurrency=1)
    (tmp_path / "flows.py").write_text(
        "import time\nfrom pathlib import Path\nfrom dispatcher import flow\n\n@flow\ndef waits(path: str) -> str:\n"
        "    Path(path).write_text('begun')\n    time.sleep(2)\n    return 'on its own'\n"
    )
    mark = tmp_path / "begun"
    environ = {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}
    process = subprocess.Popen(
        [PYTHON, *terminal.command(COMMAND, "run", "flows:waits", "-p", f"path={mark}")],
        cwd=tmp_path, env={**os.environ, **environ},
    )  # fmt: skip
    wait_until(mark.exists, "the flow", timeout=60)
    terminal.close()
    assert process.wait(30) == -signal.SIGHUP
    [run_id] = [run_id for run_id, _ in bench.records.runs.members("all", limit=10)]
    assert bench.ended(run_id).state is State.SUCCEEDED


def test_the_laptop_server_outlives_the_terminal_of_dispatcher_up(user: User, terminal: Terminal) -> None:
    arguments = [PYTHON, *terminal.command(COMMAND, "up")]
    with subprocess.Popen(arguments, cwd=user.project, env=user.environ) as process:
        assert process.wait(60) == 0
    terminal.close()
    assert user.keeps_running()


def test_flower_ends_well(server_url: str, terminal: Terminal, tmp_path: Path) -> None:
    environ = {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS), "PYTHONUNBUFFERED": "1"}
    command = terminal.command(COMMAND, "flower", "--port", "0", "--no-auth")
    with subprocess.Popen([PYTHON, *command], cwd=tmp_path, env={**os.environ, **environ}) as process:
        wait_until(lambda: re.search(r"http://\S+", terminal.output()), "Flower's address", timeout=60)
        wait_until(lambda: listens(process.pid), "Flower to listen", timeout=60)
        terminal.close()
        assert process.wait(30) == 0


def listens(pid: int) -> bool:
    """Return True if a process has a listening socket."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(link.readlink()))
        except OSError:
            continue
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return any(line[3] == "0A" and f"socket:[{line[9]}]" in sockets for line in lines)
