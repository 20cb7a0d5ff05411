"""The server goes away between an attempt's claim and the opening of its flow: the attempt waits for it (row 14)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from dispatcher.runs.states import State
from tests.chaos.recovery import place
from tests.chaos.worker_group import TIMING

#: The process that has claimed stands still for so many seconds; the server is away for longer.
FROZEN = 2.0


@pytest.mark.row(14)
@pytest.mark.parametrize(("backend", "claimed"), [("local", "attempt.claimed"), ("fake", "container.claimed")])
def test_an_outage_before_the_flow_is_opened_ends_nothing(backend: str, claimed: str) -> None:
    with tempfile.TemporaryDirectory(prefix="dsp-") as folder, place(Path(folder), backend) as here:
        environ = {"DISPATCHER__FAILPOINT": f"{claimed}=freeze:{FROZEN}"}
        here.workers(1, backends=[backend], timing={**TIMING, "lease": 30.0}, environ=environ)
        run_id = here.submit(backend=backend)
        here.until_state([run_id], State.RUNNING, State.SUCCEEDED)
        here.outage(FROZEN + 1.0)
        [record] = here.until_state([run_id], State.SUCCEEDED)
        assert record.attempt == 1
