"""The last lines of attempts that ended without a report, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from backends.base import Handle, Observation, Phase
from dispatcher.runs.states import Cause, State
from tests.unit.supervisor_scene import Scene, ScriptedBackend


class PodBackend(ScriptedBackend):
    """A backend whose containers have logs."""

    flow: tuple[str, ...] = ()
    inits: Mapping[str, tuple[str, ...]] = {"prepare": ("no such table", "giving up")}

    def logs(self, handle: Handle) -> tuple[str, ...]:
        return self.flow

    def init_logs(self, handle: Handle) -> Mapping[str, tuple[str, ...]]:
        return self.inits


@pytest.mark.parametrize(
    ("flow", "stream", "texts"),
    [((), "init/prepare", ("no such table", "giving up")), (("crashed",), "stdout", ("crashed",))],
)
def test_an_init_containers_lines_are_kept_where_the_flow_has_none(
    flow: tuple[str, ...], stream: str, texts: tuple[str, ...]
) -> None:
    backend = PodBackend()
    backend.flow = flow
    scene = Scene(backend=backend)
    record = scene.provisioned("r1")
    assert record.handle is not None
    backend.observations[str(record.handle["name"])] = Observation(phase=Phase.ENDED, cause=Cause.START_FAILED)

    def ended_with_lines() -> bool:
        outcome = scene.record("r1").outcome
        return outcome is not None and outcome.log_tail == texts

    scene.until(ended_with_lines, "its last lines")
    assert scene.record("r1").state is State.CRASHED
    lines, _ = scene.records.logs.read("r1")
    assert [(line.stream, line.text) for line in lines] == [(stream, text) for text in texts]
