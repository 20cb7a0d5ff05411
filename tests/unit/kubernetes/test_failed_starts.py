"""Containers that end without a working runner, or whose flow was killed: cause and message."""

from __future__ import annotations

import pytest

from backends.base import Phase
from dispatcher import Cause
from tests.unit.kubernetes.test_start import READY, ended, observed, pod


@pytest.mark.parametrize(
    ("code", "left", "text"),
    [
        (1, "/usr/bin/python3: No module named dispatcher", "flow-dispatcher isn't installed in it"),
        (1, "/usr/bin/python3: No module named dispatcher.runner", "another release's flow-dispatcher"),
        (1, "ImportError: cannot import name 'a' from 'dispatcher.b' (/x.py)", "dispatcher.b has no a"),
        (1, "Traceback\n  File …\nModuleNotFoundError: No module named 'redis'", "it lacks the module redis"),
        (2, "unknown option -P\nusage: python3 [option] …", "its python3 is older than 3.11"),
        (127, "sh: 1: python3: not found", "it has no python3 on its PATH"),
        (1, "exec /usr/bin/python3: exec format error\n", "it is for another CPU architecture than the node"),
        (1, "something else\n\n", "the runner ended without a message"),
        (1, "", "without a line in its log: does the image have a python3 with flow-dispatcher"),
    ],
)
def test_a_container_that_ends_without_a_runner_says_why(code: int, left: str, text: str) -> None:
    """The node passes on the last lines of its log."""
    item = pod(READY)
    item["status"]["containerStatuses"] = [{"name": "flow", "state": ended(code, "Error", left)}]
    observation = observed(item)
    assert (observation.phase, observation.cause) == (Phase.ENDED, Cause.START_FAILED)
    assert text in observation.message
    for line in left.strip().splitlines()[-1:]:
        assert observation.message.endswith(f"its last line: {line}")


def test_a_container_without_python_says_so() -> None:
    item = pod(READY)
    text = 'failed to create containerd task: exec: "python3": executable file not found in $PATH: unknown'
    item["status"]["containerStatuses"] = [{"name": "flow", "state": ended(128, "StartError", text)}]
    observation = observed(item)
    assert observation.cause is Cause.START_FAILED
    assert observation.message == f"its image can't run the runner: it has no python3 on its PATH; {text}"


def test_the_last_lines_of_a_flow_that_was_killed_are_not_its_message() -> None:
    """They are read from the log. Of one that was killed for want of memory, the last one is quoted."""
    item = pod(READY)
    item["status"]["containerStatuses"] = [{"name": "flow", "state": ended(139, "Error", "line 1\nline 2\n")}]
    assert (observed(item).cause, observed(item).message) == (Cause.KILLED, "")
    item["status"]["containerStatuses"] = [{"name": "flow", "state": ended(137, "OOMKilled", "1\n2\n")}]
    assert (observed(item).cause, observed(item).message) == (Cause.OOM_KILLED, "its last line: 2")
