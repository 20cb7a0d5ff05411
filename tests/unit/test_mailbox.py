"""The queue between threads: order, timeouts that signals don't stretch, readers that are all woken."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading

import pytest

from dispatcher.support.mailbox import Mailbox
from tests.waiting import wait_until

SIGNALLED = """
import queue, signal
from dispatcher.support.mailbox import Mailbox
arrived = []
signal.signal(signal.SIGALRM, lambda number, frame: arrived.append(box.put(number)))
box = Mailbox()
for i in range(1000):
    signal.setitimer(signal.ITIMER_REAL, 0.001 + (i % 200) * 1e-6)  # as the timeout ends
    try:
        box.get(0.001)
    except queue.Empty:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(arrived))
"""


def test_in_order() -> None:
    box = Mailbox[int]()
    for number in range(3):
        box.put(number)
    assert [box.get(0), box.get(), box.get(5)] == [0, 1, 2]
    for timeout in (0, 0.01, -1):
        with pytest.raises(queue.Empty):
            box.get(timeout)


def test_a_signal_as_the_timeout_ends_doesnt_make_it_wait_for_ever() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 0


def test_a_put_wakes_whoever_waits() -> None:
    box, taken = Mailbox[int](), list[int]()
    readers = [threading.Thread(target=lambda: taken.append(box.get(30)), daemon=True) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(4):
        box.put(number)
    wait_until(lambda: len(taken) == 4, "all four readers")
    assert sorted(taken) == [0, 1, 2, 3]


def test_a_put_in_a_handler_reaches_the_thread_that_it_interrupts() -> None:
    box = Mailbox[int]()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: box.put(number))
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert box.get(30) == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR1, before)
