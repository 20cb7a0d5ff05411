"""A worker's directory for the moment goes with it; that of one that was killed goes when the next one starts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from workers.pool.interrupts import InterruptChannel


def test_the_directory_of_a_worker_that_was_killed_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living = InterruptChannel()
    (kept,) = tmp_path.iterdir()
    (tmp_path / "dispatcher-worker-killed/code").mkdir(parents=True)
    (tmp_path / "dispatcher-worker-new").mkdir()
    (tmp_path / "other").mkdir()
    for directory in (kept, tmp_path / "dispatcher-worker-killed", tmp_path / "other"):
        os.utime(directory, (0, 0))
    InterruptChannel().close()
    assert {path.name for path in tmp_path.iterdir()} == {kept.name, "dispatcher-worker-new", "other"}
    living.close()
