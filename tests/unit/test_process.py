"""A process is identified by pid and start time."""

from __future__ import annotations

import os
import signal
import subprocess

from dispatcher.laptop.process import Process
from tests.conftest import PYTHON
from tests.waiting import wait_until


def test_this_process_lives_and_travels_as_json() -> None:
    process = Process.of(os.getpid())

    assert process is not None
    assert process.lives()
    assert Process.from_json(process.to_json()) == process


def test_a_number_used_again_is_another_process() -> None:
    process = Process.of(os.getpid())
    assert process is not None
    earlier = Process(process.pid, "before the boot")

    assert not earlier.lives()
    earlier.send(signal.SIGKILL)  # reaches nobody: this test goes on


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process is not None

    process.send(signal.SIGKILL)

    assert process.ended(within=5)
    assert Process.of(child.pid) is None
    child.communicate()


def test_waiting_for_the_end_is_bounded() -> None:
    process = Process.of(os.getpid())
    assert process is not None

    assert not process.ended(within=0.05)


def test_a_session_ends_as_a_whole() -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()']).pid, flush=True); input()"
    with subprocess.Popen(
        [PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        other = Process.of(int(leader.stdout.readline()))
        process = Process.of(leader.pid)
        assert process is not None
        assert other is not None

        process.kill_session()
        leader.wait(timeout=5)

    wait_until(lambda: not other.lives(), "the leader's child to end")


def test_what_is_not_a_process_is_none() -> None:
    assert Process.from_json({}) is None
    assert Process.from_json({"pid": "7", "started": "x"}) is None
