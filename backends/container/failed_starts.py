"""The last lines of a container that ended before its runner could report, as an explanation. Pure.

They are those of Python or of a shell. Used by backends, and by the doctor's trial.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version

#: Most characters of a line that is quoted.
LONGEST_LINE = 300

#: The beginning of an explanation where the last lines don't tell more.
NO_WORD = "the runner ended without a message"

_MISSING = re.compile(r"No module named '?([\w.]+)'?")
_OTHER_RELEASE = re.compile(r"cannot import name '?(\w+)'? from '?(dispatcher[\w.]*)'?")

#: What lines mean that name no module.
_MEANINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"unknown option:? -P", re.IGNORECASE), "its python3 is older than 3.11"),
    (re.compile(r"exec format error", re.IGNORECASE), "it is for another CPU architecture than the node"),
    (
        re.compile(r"python3\"?'?: (command )?(not found|executable file not found|no such file)", re.IGNORECASE),
        "it has no python3 on its PATH",
    ),
)


def meaning(lines: Iterable[str]) -> str | None:
    """Return what is wrong with the image of a container with these last lines; None if they don't tell."""
    text = "\n".join(lines)
    if match := _MISSING.search(text):
        module = match[1]
        if module == "dispatcher":
            return "flow-dispatcher isn't installed in it"
        if module.startswith("dispatcher."):
            return f"another release's flow-dispatcher: it has no module {module}"
        return f"it lacks the module {module}"
    if match := _OTHER_RELEASE.search(text):
        return f"another release's flow-dispatcher: {match[2]} has no {match[1]}"
    return next((meant for pattern, meant in _MEANINGS if pattern.search(text)), None)


def explained(left: str) -> str:
    """Return why a container ended without a word of its runner: the meaning and the last one of its last lines.

    Args:
        left: the last lines; empty if there are none.
    """
    lines = [line for line in left.splitlines() if line.strip()]
    if not lines:
        return (
            f"{NO_WORD}, and without a line in its log: does the image have a python3 with "
            f"flow-dispatcher {version('flow-dispatcher')}?"
        )
    problem = meaning(lines)
    subject = NO_WORD if problem is None else f"its image can't run the runner: {problem}"
    return f"{subject}; {last_line(left)}"


def last_line(left: str) -> str:
    """Return the last line of what a container left, in words; empty if there is none."""
    lines = [line.strip() for line in left.splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1]
    return f"its last line: {line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + '…'}"
