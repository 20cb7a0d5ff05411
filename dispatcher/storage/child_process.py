"""A flow in a child process: what ``Storage.get_env_runner`` of storages that can give flows returns.

The child gets storage, location and this process's import path on its standard input, and answers on a pipe of its
own, so that the flow may print as it likes. Its environment variables are those it is called with, no others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatcher.errors import InvalidParameters
from dispatcher.storage import answer
from dispatcher.storage.answer import ChildDied, Runner

if TYPE_CHECKING:
    from dispatcher.storage.base import Storage


def runner(storage: Storage, location: str) -> Runner:
    """Return a runner of the flow at ``location``, in a child process with the environment variables given to it."""
    job = {"storage": storage.to_json(), "location": location, "path": [entry or str(Path.cwd()) for entry in sys.path]}

    def run(env: Mapping[str, str]) -> Any:
        answered, answers = os.pipe()
        command = [sys.executable, "-P", "-c", f"from dispatcher.storage.child_process import main; main({answers})"]
        with os.fdopen(answered, "rb") as reader:
            try:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, env=dict(env), pass_fds=[answers])
            finally:
                os.close(answers)
            with process:
                _tell(process, json.dumps(job).encode())
                data = reader.read()
        if not data:
            raise ChildDied(f"the flow's process ended without an answer, with exit code {process.returncode}")
        return answer.read(data)

    return Runner(run)


def main(answers: int) -> None:
    """The child: run the flow and write its answer."""
    job = json.loads(sys.stdin.buffer.read())
    sys.path[:] = [*sys.path, *(entry for entry in job["path"] if entry not in sys.path)]
    data = answered(job["storage"], job["location"])
    with os.fdopen(answers, "wb") as writer:
        writer.write(data)


def answered(storage: Mapping[str, Any], location: str) -> bytes:
    """Run the flow at ``location`` with the parameters of ``DISPATCHER__PARAMETERS``; its answer."""
    from dispatcher.executors.local import LocalExecutor
    from dispatcher.storage import base
    from dispatcher.support.forks import in_parent_only

    try:
        flow = in_parent_only(lambda: base.from_json(storage).get_flow(location))
    except BaseException as error:  # whatever its modules raise
        return answer.raised(error, loaded=False)
    try:
        return in_parent_only(lambda: answer.returned(flow.run(_parameters(), LocalExecutor())))
    except BaseException as error:  # SystemExit, too, ends the flow, and not without an answer
        return answer.raised(error, loaded=True)


def _parameters() -> dict[str, Any]:
    from dispatcher.storage.base import PARAMETERS

    text = os.environ.get(PARAMETERS, "{}")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidParameters(f"{PARAMETERS}: isn't JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidParameters(f"{PARAMETERS}: must be a JSON object, got {text[:100]!r}")
    return found


def _tell(process: subprocess.Popen[bytes], data: bytes) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(data)
        process.stdin.close()
    except BrokenPipeError:  # it died at once: the missing answer tells
        process.stdin = None
