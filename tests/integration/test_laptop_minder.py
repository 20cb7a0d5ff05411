"""If a worker of the laptop server dies or drains while a program waits, another one completes its runs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher.laptop.process import Process
from tests.conftest import PYTHON
from tests.integration.laptop import User
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: Two flows hold both processes of the worker until a file is there; a third one waits for a free process.
WAITS = """
import os, pathlib, sys, time
from dispatcher import Dispatcher, flow

@flow
def hold(folder: str, name: str) -> str:
    pathlib.Path(folder, name).touch()
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.05)
    return name

@flow
def quick() -> int:
    return 7

here = os.getcwd()
with Dispatcher() as client:
    held = [client.submit(hold, {"folder": here, "name": name}, retries=1) for name in ("one", "two")]
    while not all(pathlib.Path(name).exists() for name in ("one", "two")):
        time.sleep(0.05)
    run = client.submit(quick)
    pathlib.Path("waits").touch()
    how = sys.argv[1]
    if how == "events":
        list(run.events(follow=True))
        print(run.result())
    else:
        print(run.result())
    pathlib.Path("go").touch()
    print([one.result() for one in held])
"""

#: A dead worker's runs are repeated within seconds.
TIMING = {"DISPATCHER__TIMING__LEASE": "2", "DISPATCHER__TIMING__RENEW": "0.5", "DISPATCHER__TIMING__LEASE_TICK": "0.3"}


@pytest.fixture
def start(user: User) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts the program above, and waits until its third run waits."""
    started = []

    def begin(how: str) -> subprocess.Popen[str]:
        script = user.project / "script.py"
        script.write_text(WAITS)
        program = subprocess.Popen(
            [PYTHON, str(script), how],
            env={**user.environ, **TIMING},
            cwd=user.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        started.append(program)
        wait_until((user.project / "waits").exists, "the third run to be submitted", timeout=60)
        return program

    yield begin
    for program in started:
        if program.poll() is None:
            program.kill()
        program.communicate()


def _worker(user: User) -> Process:
    (worker,) = user.status().workers
    return worker.process


@pytest.mark.parametrize("how", ["result", "events"])
def test_a_worker_that_was_killed_is_replaced_while_a_program_waits(
    how: str, user: User, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    program = start(how)
    first = _worker(user)

    first.kill_session()

    (user.project / "go").touch()  # for what is repeated
    out, errors = program.communicate(timeout=90)
    assert (program.returncode, out.split("\n")[:2]) == (0, ["7", "['one', 'two']"]), errors
    assert first not in [worker.process for worker in user.status().workers]


def test_a_worker_that_drains_is_replaced_while_a_program_waits(
    user: User, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    program = start("result")
    first = _worker(user)

    first.send(signal.SIGTERM)

    out, errors = program.communicate(timeout=60)  # it holds the first two until the third has ended
    assert (program.returncode, out.split("\n")[:2]) == (0, ["7", "['one', 'two']"]), errors


def test_a_worker_that_drains_ends_with_the_server(user: User, start: Callable[[str], subprocess.Popen[str]]) -> None:
    program = start("result")
    first = _worker(user)
    first.send(signal.SIGTERM)
    wait_until(lambda: len(user.status().workers) == 2, "another worker beside it", timeout=30)
    assert {str(worker.log) for worker in user.status().workers} == {str(_log(user))}

    program.kill()
    user.leaves()

    assert not first.lives()
    assert user.stopped()


def _log(user: User) -> Path:
    (log,) = user.places.workers.glob("*.log")
    return log
