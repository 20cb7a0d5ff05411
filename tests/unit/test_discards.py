"""Deletions that needn't wait for a flow: of attempts that nobody claimed, and of those that are over."""

from __future__ import annotations

import pytest

from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from tests.unit.supervisor_scene import Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


def name_of(record: Record) -> str:
    return str((record.handle or {})["name"])


def test_a_cancelled_attempt_that_nobody_claimed_is_discarded(scene: Scene) -> None:
    name = name_of(scene.provisioned("r1"))
    scene.update("r1", transitions.request_cancel)
    scene.until(lambda: (name, False) in scene.backend.discarded, "its deletion")


def test_a_cancelled_flow_gets_its_time_and_what_is_left_of_it_none(scene: Scene) -> None:
    record = scene.running("r1")
    name = name_of(record)
    scene.update("r1", transitions.request_cancel)
    scene.until(lambda: name in scene.backend.cancelled, "its deletion")
    assert scene.backend.discarded == []
    scene.report(record, ReportKind.EXITED, Outcome())
    scene.until(lambda: (name, True) in scene.backend.discarded, "its teardown")
