"""Drives a program of the zoo: submits a run per cell, and writes what became of each. Copied beside the program.

It runs in the program's process, and isn't part of its project. Once all is submitted it tells the test, which moves
the project away before a worker starts: nothing works because a worker happens to see the submitter's files.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.fake import FakeEnvironment
from dispatcher import Dispatcher, RemoteEnvironment

TIMEOUT = 150.0  # seconds for a run
WAYS = ("global", "parameter", "result", "closure")


def drive(names: Mapping[str, Any]) -> None:
    """Run the zoo that is defined in a namespace; the plan and the place of the outcome are in variables."""
    plan = json.loads(Path(os.environ["ZOO_PLAN"]).read_text())
    outcomes: list[dict[str, Any]] = []
    with Dispatcher() as client:
        zoo = _Zoo(client, names, outcomes, plan)
        pending = [call for place in plan["places"] for call in getattr(zoo, place)(plan)]
        Path(plan["submitted"]).touch()
        for call in pending:
            call()
    draft = Path(plan["outcomes"]).with_suffix(".draft")
    draft.write_text(json.dumps(outcomes))
    draft.rename(plan["outcomes"])


class _Zoo:
    def __init__(
        self, client: Dispatcher, names: Mapping[str, Any], outcomes: list[dict[str, Any]], plan: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._names = names
        self._outcomes = outcomes
        self._expected = {name: self._expectation(name) for name, _ in plan["cells"]}  # before the project moves away

    def local(self, plan: Mapping[str, Any]) -> list[Callable[[], None]]:
        """A run for each cell."""
        return [
            self._submit(
                "local", [(name, way)], self._flow(name, way), self._parameters(name, way), self._one(name, way)
            )
            for name, way in plan["cells"]
        ]

    def container(self, plan: Mapping[str, Any]) -> list[Callable[[], None]]:
        """A run for each way, with all specimens in it."""
        calls = []
        environment = FakeEnvironment(plan["service"])
        for way in WAYS:
            names = [name for name, its in plan["together"] if its == way]
            values = {name: self._value(name) for name in names}
            flow = self._names["all_closing"](values) if way == "closure" else self._names[f"all_{way}"]
            parameters = {"closure": {}, "parameter": {"values": values}}.get(way, {"names": names})
            cells = [(name, way) for name in names]
            calls.append(self._submit("container", cells, flow, parameters, self._each(way), environment=environment))
        return calls

    def dask(self, plan: Mapping[str, Any]) -> list[Callable[[], None]]:
        """One run with a task for each cell."""
        cells = [tuple(cell) for cell in plan["together"] if cell[0] not in plan["not_on_dask"]]
        there = RemoteEnvironment("dispatcher.executors.DaskExecutor", {"cluster_kwargs": {"processes": False}})

        def note(result: Any) -> None:
            for name, way, outcome, value in result:
                self._compare("dask", name, way, outcome, value)

        return [self._submit("dask", cells, self._names["all_tasks"], {"cells": cells}, note, environment=there)]

    def _expectation(self, name: str) -> Any:
        if f"EXPECTED_{name}" in self._names:
            return self._names[f"EXPECTED_{name}"]
        return self._names["tried"](self._names[f"check_{name}"], self._value(name))[1]

    def _flow(self, name: str, way: str) -> Any:
        return self._names[f"closing_{name}"](self._value(name)) if way == "closure" else self._names[f"{way}_{name}"]

    def _parameters(self, name: str, way: str) -> dict[str, Any]:
        return {"x": self._value(name)} if way == "parameter" else {}

    def _value(self, name: str) -> Any:
        return self._names[f"VALUE_{name}"]

    def _one(self, name: str, way: str) -> Callable[[Any], None]:
        def note(result: Any) -> None:
            if way == "result":
                result = self._names[f"check_{name}"](result)
            self._compare("local", name, way, "returned", result)

        return note

    def _each(self, way: str) -> Callable[[Any], None]:
        def note(result: Mapping[str, Any]) -> None:
            for name, value in result.items():
                check = self._names[f"check_{name}"]
                self._compare(
                    "container", name, way, *(self._names["tried"](check, value) if way == "result" else value)
                )

        return note

    def _submit(
        self,
        place: str,
        cells: Sequence[tuple[str, str]],
        flow: Any,
        parameters: Mapping[str, Any],
        note: Callable[[Any], None],
        **options: Any,
    ) -> Callable[[], None]:
        try:
            run = self._client.submit(flow, parameters, **options)
        except Exception as error:
            self._note_all(place, cells, "refused", error)
            return lambda: None

        def collect() -> None:
            try:
                note(run.result(timeout=TIMEOUT))
            except Exception as error:
                self._note_all(place, cells, "failed", error)

        return collect

    def _note_all(self, place: str, cells: Sequence[tuple[str, str]], outcome: str, error: Exception) -> None:
        told = f"{type(error).__name__}: {error}"
        details = "".join(traceback.format_exception(error)) if outcome == "failed" else ""
        for name, way in cells:
            self._note(place, name, way, outcome, told, details)

    def _compare(self, place: str, name: str, way: str, outcome: str, value: Any) -> None:
        expected = self._expected[name]
        if outcome == "returned" and value == expected:
            self._note(place, name, way, "same", "")
        elif outcome == "returned":
            self._note(place, name, way, "differs", f"{value!r}, in the program {expected!r}")
        else:
            self._note(place, name, way, "failed", str(value))

    def _note(self, place: str, name: str, way: str, outcome: str, told: str, details: str = "") -> None:
        self._outcomes.append(
            {"place": place, "name": name, "way": way, "outcome": outcome, "told": told, "details": details}
        )
