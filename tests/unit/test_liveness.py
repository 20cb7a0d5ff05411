"""The sign of life of a worker: a file that is touched while its threads work."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher.errors import ServerUnavailable
from tests.waiting import wait_until
from workers.liveness import LivenessFile
from workers.ticker import Ticker

Start = Callable[[Callable[[], float]], Ticker]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts threads that tick, and ends them after the test."""
    started = []

    def start(tick: Callable[[], float]) -> Ticker:
        started.append(Ticker("of a test", tick, lambda: None))
        started[-1].start()
        return started[-1]

    yield start
    for ticker in started:
        ticker.stop(10.0)


def is_touched(file: LivenessFile, path: Path) -> bool:
    path.touch()
    os.utime(path, (1, 1))
    file.tick()
    return path.stat().st_mtime > 1


def test_it_is_touched_while_threads_tick(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "alive"
    file = LivenessFile(path, [start(lambda: 0.01), start(lambda: 0.01)])
    assert is_touched(file, path)
    file.close()
    assert not path.exists()


def test_an_outage_is_no_reason_to_end_a_worker(start: Start, tmp_path: Path) -> None:
    def tick() -> float:
        raise ServerUnavailable("nobody there")

    assert is_touched(LivenessFile(tmp_path / "alive", [start(tick)]), tmp_path / "alive")


def test_a_thread_that_hangs_stops_it(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def hang() -> float:
        release.wait(60)
        return 60.0

    file = LivenessFile(tmp_path / "alive", [start(hang)], stuck=0.1)
    try:
        wait_until(lambda: not is_touched(file, tmp_path / "alive"), "a sign of life that is withheld")
    finally:
        release.set()
    assert "The sign of life is withheld: stuck or ended: dispatcher-of a test" in caplog.text


def test_a_thread_that_has_ended_stops_it(start: Start, tmp_path: Path) -> None:
    ended = start(lambda: 60.0)
    ended.stop(10.0)
    assert not is_touched(LivenessFile(tmp_path / "alive", [ended]), tmp_path / "alive")


def test_a_file_that_can_not_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        LivenessFile(tmp_path / "none" / "alive", []).tick()
    assert "DISPATCHER__WORKER__LIVENESS_FILE" in caplog.text
