"""Log of a client's calls and their answers: one JSON line each, in a file that outlives its writer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a client.

    ``action`` is submit, again (an unknown submit, asked again), cancel, ended (the client saw the run's end) or gone
    (it could not); ``answer`` is ok, failed (nothing was accepted), unknown, refused (it had ended), or the state
    seen. ``at`` is in seconds since the epoch, ``took`` in seconds.
    """

    action: str
    client: str
    key: str
    answer: str
    run: str = ""
    way: str = ""
    backend: str = ""
    result: Any = None
    error: str = ""
    took: float = 0.0
    at: float = field(default_factory=time.time)


class CallLog:
    """A file of calls; each is written whole."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def note(self, call: Call) -> None:
        """Append one."""
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(call)) + "\n")


def calls_in(folder: Path) -> Iterator[Call]:
    """All calls of all clients, file by file in order; half a line, of a writer that was killed, is left out."""
    for file in sorted(folder.glob("calls-*.jsonl")):
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield Call(**json.loads(line))
