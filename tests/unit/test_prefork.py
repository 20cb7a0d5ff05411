"""The pool of a worker: what Celery's would trip over."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub

from workers.prefork import Processes


def taken_for_dead(sentinel: int) -> Any:
    """A living process that is watched no more."""
    return SimpleNamespace(_sentinel_poll=None, _popen=SimpleNamespace(sentinel=sentinel))


def test_a_living_process_that_was_taken_for_dead_is_watched_again() -> None:
    reading, writing = os.pipe()
    hub = Hub()
    process = taken_for_dead(reading)
    try:
        Processes.__new__(Processes)._track_child_process(process, hub)
        assert process._sentinel_poll in hub.readers
        os.close(process._sentinel_poll)
        with pytest.raises(ValueError, match="file descriptor is None"):  # until Celery gets over it by itself
            AsynPool.__new__(AsynPool)._track_child_process(taken_for_dead(reading), hub)
    finally:
        hub.close()
        os.close(reading)
        os.close(writing)


def test_a_process_is_watched_by_one_descriptor() -> None:
    reading, writing = os.pipe()
    hub = Hub()
    process: Any = SimpleNamespace(_popen=SimpleNamespace(sentinel=reading))
    pool = Processes.__new__(Processes)
    try:
        pool._track_child_process(process, hub)
        watched = process._sentinel_poll
        pool._track_child_process(process, hub)
        assert process._sentinel_poll == watched
        os.close(watched)
    finally:
        hub.close()
        os.close(reading)
        os.close(writing)
