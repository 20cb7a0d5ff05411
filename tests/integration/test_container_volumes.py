"""Volumes of a container: its temporary files may stand in one that is open to all users, of which it has one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from dispatcher import flow
from dispatcher.runner.container.report import ReportKind
from dispatcher.runs.states import State
from dispatcher.support import private_files
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.workers import Bench

pytestmark = pytest.mark.integration


@flow
def temporary() -> str:
    """Return a temporary directory that no other user could replace."""
    return str(private_files.temporary_directory("dispatcher-test-"))


def test_temporary_files_stand_in_an_open_volume(bench: Bench, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="dsp-") as volume:
        Path(volume).chmod(0o777)  # as emptyDir makes it
        runner = RunnerProcess(AssignedRun(bench, tmp_path, temporary), variables={"TMPDIR": volume})
        try:
            assert runner.wait() == 0
        finally:
            runner.end()
        outcome = runner.assigned.report_of(ReportKind.EXITED).outcome
        assert outcome.state is State.SUCCEEDED
        assert outcome.result is not None
        assert f'"{volume}/dispatcher-test-' in (outcome.result.inline or "")
