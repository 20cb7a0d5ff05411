"""The laptop server's workers, with real programs and real workers."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest

from dispatcher import laptop
from dispatcher.errors import ServerUnavailable
from dispatcher.laptop.paths import read
from dispatcher.laptop.process import Process
from tests.conftest import PYTHON
from tests.integration.laptop import User, UserProgram, run
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def _worker(program: UserProgram) -> Process:
    process = Process.of(program.request("worker")["pid"])
    assert process is not None
    return process


def test_one_worker_per_environment_however_many_ask(user: User) -> None:
    programs = [user.joins() for _ in range(4)]
    for program in programs:
        program.send("worker")

    assert len({program.answer()["pid"] for program in programs}) == 1
    assert len(user.status().workers) == 1


def test_a_worker_knows_its_server_and_nothing_secret(user: User) -> None:
    program = user.joins(DISPATCHER__SIGNING_KEYS='{"theirs": "a secret of many bytes"}', DISPATCHER__WORKER__DRAIN="7")
    worker = _worker(program)
    assert worker.pid == _worker(program).pid

    process = Path(f"/proc/{worker.pid}")
    if process.exists():
        variables = dict(
            word.partition("=")[::2] for word in process.joinpath("environ").read_text().split("\0") if "=" in word
        )
        assert variables["DISPATCHER__URL"] == user.status().url
        assert variables["DISPATCHER__SIGNING_KEYS_FILE"] == str(user.places.keys)
        assert variables["DISPATCHER__WORKER__EVERY_LABEL"] == "true"
        assert variables["DISPATCHER__WORKER__DRAIN"] == "7.0"
        assert "DISPATCHER__SIGNING_KEYS" not in variables
        secrets = list(read(user.places.keys).values())
        assert not any(secret in value for secret in secrets for value in variables.values())
        assert process.joinpath("cwd").resolve() == user.project
        assert "-P" in process.joinpath("cmdline").read_text().split("\0")


def test_a_worker_that_died_is_replaced_at_the_next_submit(user: User) -> None:
    program = user.joins()
    first = _worker(program)

    first.kill_session()

    assert first.ended(within=5)
    assert _worker(program) != first


def test_workers_end_with_the_server(user: User) -> None:
    program = user.joins()
    worker = _worker(program)

    program.ended()

    wait_until(user.stopped, "server and worker to stop", timeout=30)
    assert not worker.lives()


def test_two_environments_share_the_server_and_no_worker(user: User) -> None:
    venv.create(user.home / "other", symlinks=True)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (target,) = (user.home / "other/lib").glob("python*/site-packages")
    (target / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in packages))
    program, other = user.joins(), user.joins(python=str(user.home / "other/bin/python"))

    first, second = program.request("worker"), other.request("worker")

    assert first["scope"] != second["scope"]
    assert {worker.process.pid for worker in user.status().workers} == {first["pid"], second["pid"]}


SUBMITS = """
import sys, time
from dispatcher import Dispatcher, flow

@flow
def slow(seconds: float) -> str:
    time.sleep(seconds)
    return open("here.txt").read()

with Dispatcher() as client:
    print(client.submit(slow, {"seconds": float(sys.argv[1])}).id)
"""

ASKS = """
import sys
from dispatcher import Dispatcher

with Dispatcher() as client:
    run = client.get(sys.argv[1])
    print(run.state, run.result(timeout=60))
"""

NESTS = """
from dispatcher import Dispatcher, flow

@flow
def inner() -> int:
    return 7

@flow
def outer() -> int:
    with Dispatcher() as client:
        return client.submit(inner).result(timeout=30)

with Dispatcher() as client:
    print(client.submit(outer).result(timeout=60))
"""


def _script(user: User, code: str, *arguments: str) -> str:
    """Run a script of the user to its end, and return its output."""
    script = user.project / "script.py"
    script.write_text(code)
    done = run(user, [PYTHON, str(script), *arguments])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_goes_on_without_its_program_and_is_found_later(user: User) -> None:
    (user.project / "here.txt").write_text("a file of the project")
    run_id = _script(user, SUBMITS, "6")

    assert user.keeps_running()
    assert not user.status().programs
    wait_until(user.stopped, "the server to stop once the run has ended", timeout=40)

    assert _script(user, ASKS, run_id) == "SUCCEEDED a file of the project"


def test_a_flow_submits_flows(user: User) -> None:
    assert _script(user, NESTS) == "7"


@pytest.mark.parametrize("on_path", [False, True])
def test_a_folder_named_workers_in_the_project(on_path: bool, user: User) -> None:
    theirs = user.project / "workers"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("open('started', 'w')")
    (theirs / "__main__.py").write_text("open('started', 'w')")
    program = user.joins(**({"PYTHONPATH": "."} if on_path else {}))

    program.send("worker")

    if on_path:
        with pytest.raises(AssertionError, match=f"{theirs}.*PYTHONPATH"):
            program.answer()
    else:
        worker = program.answer()
        assert f"dispatcher/workers/{worker['scope']}.log" in str(user.status().workers[0].log)
    assert not (user.project / "started").exists()


def test_no_worker_is_started_for_a_server_that_was_stopped(user: User) -> None:
    with laptop.join(user.settings) as joined:
        laptop.down(user.settings)

        with pytest.raises(ServerUnavailable, match="dispatcher up"):
            joined.ensure_worker()
