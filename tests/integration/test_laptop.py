"""The laptop server with real programs, a real server and real workers."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from dispatcher import laptop
from dispatcher.errors import InvalidInput, InvalidSettings, ServerUnavailable
from dispatcher.laptop import daemon, server
from dispatcher.laptop.paths import read, write
from dispatcher.laptop.process import Process
from dispatcher.records.redis import open_redis
from dispatcher.settings import Settings
from tests.conftest import PYTHON
from tests.integration.laptop import User
from tests.unit.command import call
from tests.unit.making import make_record
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


def _open_run(user: User) -> str:
    """Add a run to the records that no worker serves."""
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

    status = user.status()
    assert status.running
    assert len(status.programs) == 2
    assert not status.stays
    assert status.open_runs == 0
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

    urls = {program.answer()["url"] for program in programs}

    assert len(urls) == 1
    assert len(user.status().programs) == 6
    assert sum("started" in program.ended() for program in programs) == 1


def test_programs_of_another_session_find_the_same(user: User) -> None:
    user.joins()

    other = user.starts(XDG_RUNTIME_DIR="")  # as from cron, or over ssh

    assert other.answer()["url"] == user.status().url


def test_it_stops_when_its_last_program_has_left(user: User) -> None:
    first, second = user.joins(), user.joins()
    first.request("leave")
    assert user.keeps_running()

    second.request("leave")

    wait_until(user.stopped, "the server to stop")
    wait_until(lambda: not daemon.process(user.places), "its keeper to end")
    assert list(user.run.rglob("*.sock")) == []
    assert list(user.places.programs.iterdir()) == []
    assert first.ended()
    assert second.ended() == ""


def test_a_crashed_program_is_not_waited_for(user: User) -> None:
    user.joins().kill()

    wait_until(user.stopped, "the server to stop")


def test_the_child_of_a_program_is_not_a_program(user: User) -> None:
    program = user.joins()
    child = Process.of(program.request("fork")["pid"])
    assert child is not None
    try:
        program.process.kill()

        wait_until(user.stopped, "the server to stop")
    finally:
        child.send(signal.SIGKILL)
        program.ended()


def test_it_ends_with_no_signal_of_the_program(user: User) -> None:
    program = user.starts()
    program.answer()
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
    with laptop.join(user.settings):
        keys = user.places.keys.read_text()
    laptop.down(user.settings)

    with laptop.join(user.settings) as joined:
        assert joined.settings.signing_keys_file == user.places.keys
        assert user.places.keys.read_text() == keys


def test_a_key_that_others_can_read_is_refused(user: User) -> None:
    with laptop.join(user.settings):
        user.places.keys.chmod(0o644)

    with pytest.raises(InvalidSettings, match="chmod 600"):
        laptop.join(user.settings)


def test_what_joining_fills_in(user: User) -> None:
    own_settings = Settings.load(state_dir=user.state, signing_keys='{"theirs": "a secret of many bytes"}')

    with laptop.join(own_settings) as joined:
        settings = joined.settings
        assert (settings.url, settings.signing_keys) == (joined.url, None)
        assert settings.worker.scope == joined.scope
        assert settings.worker.every_label
        assert len(user.status().programs) == 1
        joined.leave()
        joined.leave()
        assert len(user.status().programs) == 0


def test_up_stays_until_down(user: User) -> None:
    assert laptop.up(user.settings).stays
    user.joins().ended()
    assert user.keeps_running()

    assert laptop.down(user.settings)

    assert user.stopped()
    assert not daemon.process(user.places)
    assert not laptop.down(user.settings)


def test_down_refuses_while_runs_are_open(user: User) -> None:
    laptop.up(user.settings)
    _open_run(user)

    with pytest.raises(InvalidInput, match=r"1 run is open.*--force"):
        laptop.down(user.settings)

    assert user.status().open_runs == 1
    assert laptop.down(user.settings, force=True)
    assert user.stopped()


def test_up_does_not_outlive_a_crash_of_the_machine(user: User) -> None:
    laptop.up(user.settings)
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
    """The pid of a dead server may belong to another process by now, which isn't touched."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        laptop.up(user.settings)
        _power_cut(user)
        write(user.places.server, {**read(user.places.server), "pid": bystander.pid})
        (user.places.data / "server.pid").write_text(f"{bystander.pid}\n")

        assert not user.status().running
        laptop.down(user.settings, force=True)
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
            laptop.join(user.settings)
        holder.communicate(b"\n")


def test_a_server_that_cannot_start_tells_why(user: User) -> None:
    with laptop.join(user.settings):
        _open_run(user)
    laptop.down(user.settings, force=True)
    (part,) = (user.places.data / "appendonlydir").glob("*.incr.aof")
    part.write_bytes(b"*9\r\nnonsense\r\n" + part.read_bytes())

    with pytest.raises(ServerUnavailable, match=r"ended at its start: .*[Bb]ad file format.*server\.log"):
        laptop.join(user.settings)


def test_starting_is_quick(user: User) -> None:
    began = time.perf_counter()
    with laptop.join(user.settings):
        cold = time.perf_counter() - began
        again = time.perf_counter()
        with laptop.join(user.settings):
            warm = time.perf_counter() - again

    assert cold < 2.0  # measured: 0.13 s, and 0.002 s; the rest is for busy machines
    assert warm < 0.5


def _power_cut(user: User) -> None:
    """Kill server and daemon at once, as a power cut does."""
    for process in (daemon.process(user.places), server.process(user.places)):
        assert process is not None
        process.send(signal.SIGKILL)
        assert process.ended(within=5)


def test_status_while_it_comes_and_goes(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER__STATE_DIR", str(user.state))
    over = threading.Event()

    def come_and_go() -> None:
        for _ in range(15):
            laptop.up(user.settings)
            laptop.down(user.settings)
        over.set()

    other = threading.Thread(target=come_and_go)
    other.start()
    answers: set[tuple[int, str]] = set()
    while not over.is_set():
        done = call("status")
        answers.add((done.exit_code, done.output.split()[0]))
    other.join()
    assert answers == {(0, "server"), (0, "the")}
