"""The ``setup`` of an environment of another distribution whose runs start in the worker's own processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dispatcher.environments.base import Environment
from dispatcher.errors import Permanent
from dispatcher.runs.states import Cause, State
from dispatcher.storage.base import Storage
from tests.unit.attempts import World, double


class Noting(Environment):
    """Notes each call of ``setup`` in a file, and raises ``failure``."""

    backend = "local"
    added = ("notes", "failure")

    notes: str
    failure: str | None

    def __init__(self, *arguments: Any, notes: str, failure: str | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._set(notes=notes, failure=failure)

    def setup(self, storage: Storage) -> None:
        with Path(self.notes).open("a") as notes:
            notes.write(f"{type(storage).__name__}\n")
        if self.failure:
            raise Permanent(self.failure, cause=Cause.QUOTA)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Register the environment; return the file of its notes."""
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[dispatcher.environments]\nNoting = {__name__}:Noting\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "notes"


def test_setup_is_called_once_per_content_before_the_flow(notes: Path) -> None:
    world = World()
    for labels in ((), (), ("other",)):
        record = world.run(world.submit(double, {"x": 1}, Noting(labels, notes=str(notes))))
        assert record.state is State.SUCCEEDED
    assert notes.read_text().splitlines() == ["RedisStorage", "RedisStorage"]


def test_a_setup_that_fails_ends_the_attempt_and_is_called_again(notes: Path) -> None:
    world = World()
    for _ in range(2):
        record = world.run(world.submit(double, {"x": 1}, Noting(notes=str(notes), failure="no room for a table")))
        assert record.outcome is not None
        assert (record.state, record.outcome.cause) == (State.CRASHED, Cause.QUOTA)
        assert record.outcome.message == "no room for a table"
        assert world.texts(record) == []
    assert len(notes.read_text().splitlines()) == 2
