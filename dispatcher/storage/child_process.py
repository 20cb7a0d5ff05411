"""Runs a flow in a child process, for storages that can return flows (``Storage.get_env_runner``).

The child reads storage, location, the parent's import path and a directory from its standard input. It unpacks the
flow's code bundle in that directory, and imports from it first. It answers on a pipe of its own
(:mod:`dispatcher.storage.answer`), so that the flow may print freely. It has only the environment variables given to
it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatcher.errors import InvalidParameters
from dispatcher.storage import answer
from dispatcher.storage.answer import ChildDied, Runner
from dispatcher.support import private_files

if TYPE_CHECKING:
    from dispatcher.storage.base import Storage


def runner(storage: Storage, location: str) -> Runner:
    """Return a runner that runs the flow at ``location`` in a child process."""
    job = {"storage": storage.to_json(), "location": location, "path": [entry or str(Path.cwd()) for entry in sys.path]}

    def run(env: Mapping[str, str]) -> Any:
        directory = private_files.temporary_directory("dispatcher-code-")
        try:
            return answer.decode(_run({**job, "directory": str(directory)}, env))
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    return Runner(run)


def _run(job: Mapping[str, Any], env: Mapping[str, str]) -> bytes:
    """Run a job in a child process, and return its answer."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-P", "-c", f"from dispatcher.storage.child_process import main; main({write_end})"]
    with os.fdopen(read_end, "rb") as reader:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, env=dict(env), pass_fds=[write_end])
        finally:
            os.close(write_end)
        with process:
            _send(process, json.dumps(job).encode())
            data = reader.read()
    if not data:
        raise ChildDied(f"the flow's process ended without an answer, with exit code {process.returncode}")
    return data


def main(answer_fd: int) -> None:
    """Run the flow that standard input names, and write its answer to a file descriptor."""
    job = json.loads(sys.stdin.buffer.read())
    sys.path[:] = [*sys.path, *(entry for entry in job["path"] if entry not in sys.path)]
    data = run_flow(job["storage"], job["location"], directory=Path(job["directory"]))
    with os.fdopen(answer_fd, "wb") as writer:
        writer.write(data)


def run_flow(storage: Mapping[str, Any], location: str, *, directory: Path | None = None) -> bytes:
    """Run a flow in this process, which is its own, and return its answer.

    Args:
        storage: the storage's JSON.
        location: of the flow. Its parameters are those in ``DISPATCHER__PARAMETERS``.
        directory: where its code bundle is unpacked; by default in a temporary directory.
    """
    from dispatcher.code.activation import importing
    from dispatcher.storage import base
    from dispatcher.support.interpreter import PYTHON

    try:
        opened = base.from_json(storage)
        with importing(base.bundle_with(opened, location), python=PYTHON, directory=directory):
            return _answer(opened, location)
    except Exception as error:
        return answer.encode_exception(error, loaded=False)


def _answer(storage: Storage, location: str) -> bytes:
    from dispatcher.executors.local import LocalExecutor
    from dispatcher.support.forks import in_parent_only

    try:
        flow = in_parent_only(lambda: storage.get_flow(location))
    except BaseException as error:  # anything that its modules may raise
        return answer.encode_exception(error, loaded=False)
    try:
        return in_parent_only(lambda: answer.encode_result(flow.run(_parameters(), LocalExecutor())))
    except BaseException as error:  # a SystemExit ends the flow, too, but the answer must be written
        return answer.encode_exception(error, loaded=True)


def _parameters() -> dict[str, Any]:
    from dispatcher.storage.base import PARAMETERS

    text = os.environ.get(PARAMETERS, "{}")
    try:
        parameters = json.loads(text)
    except ValueError as error:
        raise InvalidParameters(f"{PARAMETERS}: isn't JSON: {error}") from None
    if not isinstance(parameters, dict):
        raise InvalidParameters(f"{PARAMETERS}: must be a JSON object, got {text[:100]!r}")
    return parameters


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(data)
        process.stdin.close()
    except BrokenPipeError:  # the child died at once; its missing answer is reported
        process.stdin = None
