"""The node of the toy container service: one process per container, started by :mod:`backends.fake`.

It takes a container that was created, starts the runner where the script says so, waits for it, and notes its end. It
removes the file once it was deleted and its process has ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from backends.fake import GRACE, RUNS, TALKS, note


def main(file: Path) -> None:
    """Play one container from its creation to its end, unless another node does."""
    taken = os.open(file.with_suffix(".node"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found: dict[str, Any] = json.loads(file.read_text())
    except (BlockingIOError, FileNotFoundError):  # played, or over
        return
    request = found["request"]
    if request["script"] == "queued":
        _until_admitted(file)
    if request["script"] in RUNS and found["pid"] is None and not file.with_suffix(".deleted").exists():
        with file.with_suffix(".log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "dispatcher.runner"], stdout=log, stderr=log, process_group=0
            )
        found["pid"], found["started"] = child.pid, time.time()
        _write(file, found)
        code = _wait(child, file)
        _end(file, found, code if code >= 0 else 128 - code)
    elif request["script"] == "talks":
        file.with_suffix(".log").write_text("the runner can't start\n")
        found["started"] = time.time()
        _end(file, found, TALKS)
    _until_deleted(file)
    note(file, "deleted", found["uid"])  # first: who sees no file finds it in the account
    file.unlink(missing_ok=True)


def _wait(child: subprocess.Popen[bytes], file: Path, *, grace: float = GRACE) -> int:
    """The runner's exit code; a deleted container gets SIGTERM, and SIGKILL after ``grace`` seconds."""
    asked: float | None = None
    while (code := child.poll()) is None:
        if asked is None and file.with_suffix(".deleted").exists():
            asked = time.monotonic()
            os.killpg(child.pid, signal.SIGTERM)
        elif asked is not None and time.monotonic() > asked + grace:
            os.killpg(child.pid, signal.SIGKILL)
        time.sleep(0.05)
    return code


def _end(file: Path, found: dict[str, Any], code: int) -> None:
    while (file.parent / "lost").exists() and found["request"]["script"] == "node":
        time.sleep(0.05)  # the node can't say how it ended
    found["exit_code"], found["finished"] = code, time.time()
    _write(file, found)
    note(file, "ended", found["uid"])


def _until_admitted(file: Path) -> None:
    while (file.parent / "suspend").exists() and not file.with_suffix(".deleted").exists():
        time.sleep(0.05)


def _write(file: Path, found: dict[str, Any]) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(found))
    draft.replace(file)


def _until_deleted(file: Path) -> None:
    """Wait for the deletion; a container nobody asks for again is dropped with its folder, or after an hour."""
    end = time.monotonic() + 3600
    while time.monotonic() < end and file.exists() and not file.with_suffix(".deleted").exists():
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
