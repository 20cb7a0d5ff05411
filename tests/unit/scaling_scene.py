"""A supervisor whose backend has workers, and the runner's reports of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from dispatcher.runner.container.report import ReportKind
from dispatcher.runs import transitions
from dispatcher.runs.cluster import WorkerReport
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.record import Record
from tests.unit.supervisor_scene import ScaledBackend, Scene


class ScalingScene(Scene):
    """A supervisor with the workers of one run.

    Args:
        directory: of the workers.
        least, most, play: of :class:`ScaledBackend`.
    """

    def __init__(self, directory: Path, least: int = 1, most: int = 2, play: str = "run") -> None:
        self.scaled = ScaledBackend(directory, least, most, play)
        super().__init__(self.scaled)

    def begin(self, **options: Any) -> Record:
        """A run whose runner has claimed its attempt."""
        self.provisioned("run1", **options)
        return self.update("run1", partial(transitions.claim_attempt, attempt=1, holder="pod"))

    def say(self, *wanted: str, connected: str = "", ready: bool | None = None, lost: str = "") -> None:
        """Report workers as the runner does; names in text are separated by spaces."""
        joined = tuple(connected.split())
        report = WorkerReport(
            wanted=wanted, connected=joined, ready=bool(joined) if ready is None else ready, lost=tuple(lost.split())
        )
        self.report(self.record("run1"), ReportKind.WORKERS, workers=report)

    @property
    def run(self) -> Record:
        return self.record("run1")

    @property
    def state(self) -> ClusterState:
        assert self.run.workers is not None
        return self.run.workers

    @property
    def names(self) -> list[str]:
        """Names of the workers that exist."""
        return [state.name for state in self.scaled.workers(self.run.handle or {})] if self.run.handle else []

    @property
    def created(self) -> list[str]:
        """Names of all workers that were created, in order."""
        ledger = self.scaled.directory / "ledger.jsonl"
        lines = map(json.loads, ledger.read_text().splitlines()) if ledger.exists() else ()
        return [line["name"].rpartition(".")[2] for line in lines if line["what"] == "worker created"]

    def events(self) -> list[Event]:
        return [event for event in self.records.events.of("run1")[0] if event.kind is EventKind.WORKERS]

    def until_names(self, *names: str) -> None:
        self.until(lambda: self.names == list(names), f"the workers {', '.join(names)}; there are {self.names}")

    def log(self) -> list[str]:
        return [f"[{line.stream}] {line.text}" for line in self.records.logs.read("run1")[0]]
