"""The laptop server with real programs, a real server and real workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher import embedded
from dispatcher.embedded import keeper, server
from dispatcher.embedded.places import read, write
from dispatcher.errors import InvalidInput, InvalidSettings, ServerUnavailable
from dispatcher.process import Process
from dispatcher.records.redis import open_redis
from dispatcher.settings import Settings
from tests.conftest import PYTHON
from tests.integration.laptop import Program, User, run
from tests.unit.making import make_record
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    """A user whose directories have short names: a socket lies in one."""
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        one = User(Path(directory))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(one.run))
        try:
            yield one
        finally:
            one.leaves()


def _open_run(user: User) -> str:
    """Put a run into the records that no worker serves."""
    url = user.status().url
    assert url is not None
    records = open_redis(url)
    try:
        (stored,) = records.runs.create([make_record()])
        return stored.id
    finally:
        records.close()


def test_the_first_program_starts_it_and_says_so(user: User) -> None:
    first = user.joins()
    second = user.joins()

    found = user.status()
    assert found.running
    assert len(found.programs) == 2
    assert not found.stays
    assert found.open_runs == 0
    assert second.ended() == ""
    assert first.ended() == f"dispatcher: started the laptop server; its data are in {user.state}\n"


def test_nobody_else_gets_in(user: User) -> None:
    user.joins()

    url = user.status().url
    assert url is not None
    socket = Path(url.removeprefix("unix://").partition("?")[0])
    modes = {path.name: path.stat().st_mode & 0o777 for path in (socket, socket.parent, user.state, user.places.keys)}
    assert modes == {socket.name: 0o600, "dispatcher": 0o700, user.state.name: 0o700, "signing-keys.json": 0o600}
    assert len(os.fsencode(socket)) <= 100


def test_programs_that_start_at_once_share_one(user: User) -> None:
    programs = [user.starts() for _ in range(6)]

    urls = {program.heard()["url"] for program in programs}

    assert len(urls) == 1
    assert len(user.status().programs) == 6
    assert sum("started" in program.ended() for program in programs) == 1


def test_programs_of_another_session_find_the_same(user: User) -> None:
    user.joins()

    other = user.starts(XDG_RUNTIME_DIR="")  # as from cron, or over ssh

    assert other.heard()["url"] == user.status().url


def test_it_stops_when_its_last_program_has_left(user: User) -> None:
    first, second = user.joins(), user.joins()
    first.told("leave")
    time.sleep(keeper.LINGER + 3 * keeper.TICK)  # nothing may happen in this time
    assert user.status().running

    second.told("leave")

    wait_until(user.stopped, "the server to stop")
    wait_until(lambda: not keeper.process(user.places), "its keeper to end")
    assert list(user.run.rglob("*.sock")) == []
    assert list(user.places.programs.iterdir()) == []
    assert first.ended()
    assert second.ended() == ""


def test_a_crashed_program_is_not_waited_for(user: User) -> None:
    user.joins().kill()

    wait_until(user.stopped, "the server to stop")


def test_the_child_of_a_program_is_not_a_program(user: User) -> None:
    program = user.joins()
    child = Process.of(program.told("fork")["pid"])
    assert child is not None
    try:
        program.process.kill()

        wait_until(user.stopped, "the server to stop")
    finally:
        child.send(signal.SIGKILL)
        program.ended()


def test_it_ends_with_no_signal_of_the_program(user: User) -> None:
    program = user.starts()
    program.heard()
    pid = user.status().pid
    assert pid is not None

    assert os.getpgid(pid) != os.getpgid(program.process.pid)
    assert os.getsid(pid) != os.getsid(program.process.pid)


def test_data_outlive_it(user: User) -> None:
    program = user.joins()
    run_id = _open_run(user)
    program.ended()
    wait_until(user.stopped, "the server to stop, as no worker can bring its open run on")

    user.joins()

    url = user.status().url
    assert url is not None
    records = open_redis(url)
    try:
        assert records.runs.get(run_id)[0].id == run_id
    finally:
        records.close()


def test_the_key_is_made_once(user: User) -> None:
    with embedded.join(user.settings):
        keys = user.places.keys.read_text()
    embedded.down(user.settings)

    with embedded.join(user.settings) as joined:
        assert joined.settings.signing_keys_file == user.places.keys
        assert user.places.keys.read_text() == keys


def test_a_key_that_others_can_read_is_refused(user: User) -> None:
    with embedded.join(user.settings):
        user.places.keys.chmod(0o644)

    with pytest.raises(InvalidSettings, match="chmod 600"):
        embedded.join(user.settings)


def test_what_joining_fills_in(user: User) -> None:
    given = Settings.load(state_dir=user.state, signing_keys='{"theirs": "a secret of many bytes"}')

    with embedded.join(given) as joined:
        settings = joined.settings
        assert (settings.url, settings.signing_keys) == (joined.url, None)
        assert settings.worker.scope == joined.scope
        assert settings.worker.every_label
        assert len(user.status().programs) == 1
        joined.leave()
        joined.leave()
        assert len(user.status().programs) == 0


def test_up_stays_until_down(user: User) -> None:
    assert embedded.up(user.settings).stays
    user.joins().ended()
    time.sleep(keeper.LINGER + 3 * keeper.TICK)  # nothing may happen in this time
    assert user.status().running

    assert embedded.down(user.settings)

    assert user.stopped()
    assert not keeper.process(user.places)
    assert not embedded.down(user.settings)


def test_down_refuses_while_runs_are_open(user: User) -> None:
    embedded.up(user.settings)
    _open_run(user)

    with pytest.raises(InvalidInput, match=r"1 run is open.*--force"):
        embedded.down(user.settings)

    assert user.status().open_runs == 1
    assert embedded.down(user.settings, force=True)
    assert user.stopped()


def test_up_does_not_outlive_a_crash_of_the_machine(user: User) -> None:
    embedded.up(user.settings)
    _power_cut(user)

    program = user.joins()
    assert not user.status().stays
    program.ended()

    wait_until(user.stopped, "the server to stop")


def test_a_server_that_died_comes_back_for_its_programs(user: User) -> None:
    user.joins()
    run_id = _open_run(user)
    first = server.process(user.places)
    assert first is not None

    first.send(signal.SIGKILL)

    wait_until(lambda: user.status().pid not in {None, first.pid}, "another server")
    url = user.status().url
    assert url is not None
    records = open_redis(url)
    assert records.runs.get(run_id)[0].id == run_id
    records.close()


def test_a_server_whose_socket_was_removed_is_replaced(user: User) -> None:
    user.joins()
    (socket,) = user.run.rglob("*.sock")
    socket.unlink()

    user.joins()

    assert socket.exists()
    assert user.status().open_runs == 0


def test_what_a_crash_left_names_nobody(user: User) -> None:
    """The number of a dead server may be another process's by now: it is left alone."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        embedded.up(user.settings)
        _power_cut(user)
        write(user.places.server, {**read(user.places.server), "pid": bystander.pid})
        (user.places.data / "server.pid").write_text(f"{bystander.pid}\n")

        assert not user.status().running
        embedded.down(user.settings, force=True)
        user.joins()

        assert user.status().running
        assert bystander.poll() is None
        bystander.kill()


def test_a_state_directory_in_use_elsewhere_is_told(user: User) -> None:
    user.places.prepare()
    write(user.places.server, {"socket": str(user.run / "gone"), "host": "another.example"})
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [PYTHON, "-c", code, str(user.places.server_lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()

        with pytest.raises(ServerUnavailable, match=r"another\.example.*DISPATCHER__STATE_DIR"):
            embedded.join(user.settings)
        holder.communicate(b"\n")


def test_a_server_that_cannot_start_tells_why(user: User) -> None:
    with embedded.join(user.settings):
        _open_run(user)
    embedded.down(user.settings, force=True)
    (part,) = (user.places.data / "appendonlydir").glob("*.incr.aof")
    part.write_bytes(b"*9\r\nnonsense\r\n" + part.read_bytes())

    with pytest.raises(ServerUnavailable, match=r"ended at its start: .*[Bb]ad file format.*server\.log"):
        embedded.join(user.settings)


def test_starting_is_quick(user: User) -> None:
    began = time.perf_counter()
    with embedded.join(user.settings):
        cold = time.perf_counter() - began
        again = time.perf_counter()
        with embedded.join(user.settings):
            warm = time.perf_counter() - again

    assert cold < 2.0  # measured: 0.13 s, and 0.002 s; the rest is for busy machines
    assert warm < 0.5


def _worker(program: Program) -> Process:
    one = Process.of(program.told("worker")["pid"])
    assert one is not None
    return one


def test_one_worker_per_environment_however_many_ask(user: User) -> None:
    programs = [user.joins() for _ in range(4)]
    for program in programs:
        program.tell("worker")

    assert len({program.heard()["pid"] for program in programs}) == 1
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
    one, other = user.joins(), user.joins(python=str(user.home / "other/bin/python"))

    first, second = one.told("worker"), other.told("worker")

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
    """Run a script of the user's to its end; what it printed."""
    script = user.project / "script.py"
    script.write_text(code)
    done = run(user, [PYTHON, str(script), *arguments])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_goes_on_without_its_program_and_is_found_later(user: User) -> None:
    (user.project / "here.txt").write_text("a file of the project")
    run_id = _script(user, SUBMITS, "6")

    time.sleep(keeper.LINGER + 3 * keeper.TICK)  # nothing may happen in this time
    assert user.status().running
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

    program.tell("worker")

    if on_path:
        with pytest.raises(AssertionError, match=f"{theirs}.*PYTHONPATH"):
            program.heard()
    else:
        worker = program.heard()
        assert f"dispatcher/workers/{worker['scope']}.log" in str(user.status().workers[0].log)
    assert not (user.project / "started").exists()


def test_no_worker_is_started_for_a_server_that_was_stopped(user: User) -> None:
    with embedded.join(user.settings) as joined:
        embedded.down(user.settings)

        with pytest.raises(ServerUnavailable, match="dispatcher up"):
            joined.ensure_worker()


def _power_cut(user: User) -> None:
    """End server and keeper at once, as when the machine goes off."""
    for one in (keeper.process(user.places), server.process(user.places)):
        assert one is not None
        one.send(signal.SIGKILL)
        assert one.ended(within=5)
