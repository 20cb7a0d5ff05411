"""Projects of users: files in a directory, and a program there that submits flows of their modules when it is told to.

For tests of code bundles: nothing of the project is imported by the tests' own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conftest import PYTHON
from tests.integration.workers import KEYS

_PROGRAM = """
import importlib, json, sys
from dispatcher import Dispatcher

def told(client, module, order):
    if order["do"] == "submit":
        run = client.submit(getattr(module, order["flow"]), order["parameters"], **order["options"])
        return run.id
    if order["do"] == "map":
        return len(client.map(getattr(module, order["flow"]), [{}] * order["times"]))
    if order["do"] == "loaded":
        return sorted(sys.modules)
    if order["do"] == "cancel":
        return client.get(order["run"]).cancel()
    return client.get(order["run"]).result(timeout=60)

with Dispatcher() as client:
    sys.path.insert(0, sys.argv[1])
    for line in sys.stdin:
        try:
            module = importlib.import_module("etl")
            answer = {"result": told(client, module, json.loads(line))}
        except BaseException as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": getattr(error, "traceback", "")}
        print(json.dumps(answer, default=repr), flush=True)
"""


class FlowError(Exception):
    """A run failed, or was refused; with the text and the traceback of the program's exception."""

    def __init__(self, text: str, traceback: str) -> None:
        super().__init__(text)
        self.traceback = traceback


class Project:
    """A directory with the module ``etl``, and a program that submits its flows.

    Args:
        directory: of the project; made if it isn't there.
        url: the server.
        files: their contents by name.
        variables: of the program, beside this process's own.
    """

    def __init__(
        self, directory: Path, url: str, files: Mapping[str, str | bytes], variables: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.write(files)
        self._errors = directory.with_name(f"{directory.name}.stderr")
        environ = {
            **os.environ,
            "DISPATCHER__URL": url,
            "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
            **(variables or {}),
        }
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [PYTHON, "-P", "-c", _PROGRAM, str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environ,
                cwd=directory.parent,
            )

    @property
    def output(self) -> str:
        """The program's standard error so far."""
        return self._errors.read_text(errors="replace")

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Write files of the project; text is dedented."""
        for name, content in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).encode())

    def submit(self, flow: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Submit a flow of ``etl``, and return the run's id."""
        return str(self._tell(do="submit", flow=flow, parameters=dict(parameters or {}), options=options))

    def map(self, flow: str, times: int) -> int:
        """Submit a flow as often by ``map``, and return the number of runs."""
        return int(self._tell(do="map", flow=flow, times=times))

    def result(self, run_id: str) -> Any:
        """Wait for a run's result.

        Raises:
            FlowError: it has none.
        """
        return self._tell(do="result", run=run_id)

    def run(self, flow: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Submit a flow and wait for its result."""
        return self.result(self.submit(flow, parameters, **options))

    def cancel(self, run_id: str) -> None:
        """Cancel a run."""
        self._tell(do="cancel", run=run_id)

    def loaded(self) -> list[str]:
        """Return the names of the modules that the program has imported."""
        return list(self._tell(do="loaded"))

    def close(self) -> None:
        """End the program."""
        self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()  # type: ignore[union-attr]

    def _tell(self, **order: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the program ended:\n{self.output}"
        answer = json.loads(line)
        if "error" in answer:
            raise FlowError(answer["error"], answer["traceback"])
        return answer["result"]
