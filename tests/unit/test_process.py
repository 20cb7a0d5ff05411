"""A process is known by number and start."""

from __future__ import annotations

import os
import signal
import subprocess

from dispatcher.laptop.process import Process
from tests.conftest import PYTHON
from tests.waiting import wait_until


def test_this_process_lives_and_travels_as_json() -> None:
    one = Process.of(os.getpid())

    assert one is not None
    assert one.lives()
    assert Process.from_json(one.to_json()) == one


def test_a_number_used_again_is_another_process() -> None:
    one = Process.of(os.getpid())
    assert one is not None
    earlier = Process(one.pid, "before the boot")

    assert not earlier.lives()
    earlier.send(signal.SIGKILL)  # reaches nobody: this test goes on


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE)
    one = Process.of(child.pid)
    assert one is not None

    one.send(signal.SIGKILL)

    assert one.ended(within=5)
    assert Process.of(child.pid) is None
    child.communicate()


def test_waiting_for_the_end_is_bounded() -> None:
    one = Process.of(os.getpid())
    assert one is not None

    assert not one.ended(within=0.05)


def test_a_session_ends_as_a_whole() -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()']).pid, flush=True); input()"
    with subprocess.Popen(
        [PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        other = Process.of(int(leader.stdout.readline()))
        one = Process.of(leader.pid)
        assert one is not None
        assert other is not None

        one.kill_session()
        leader.wait(timeout=5)

    wait_until(lambda: not other.lives(), "the leader's child to end")


def test_what_is_not_a_process_is_none() -> None:
    assert Process.from_json({}) is None
    assert Process.from_json({"pid": "7", "started": "x"}) is None
