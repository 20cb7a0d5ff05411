"""The node of the fake container service: one process per container, started by :mod:`backends.fake`.

It starts the runner if the container's script says so, waits for it, and notes its exit code. It removes the file once
the container was deleted, its process has ended and its workers are gone.
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

from backends.fake import GRACE, RUNS, TALKS
from backends.fake_ledger import note
from backends.fake_workers import remove_workers


def main(file: Path) -> None:
    """Play one container from its creation to its end, unless another node does."""
    taken = os.open(file.with_suffix(".node"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        container: dict[str, Any] = json.loads(file.read_text())
    except (BlockingIOError, FileNotFoundError):  # another node plays it, or it is gone
        return
    request = container["request"]
    if request["script"] == "queued":
        _until_admitted(file)
    if request["script"] in RUNS and container["pid"] is None and not file.with_suffix(".deleted").exists():
        with file.with_suffix(".log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "dispatcher.runner"], stdout=log, stderr=log, process_group=0
            )
        container["pid"], container["started"] = child.pid, time.time()
        _write(file, container)
        code = _wait(child, file)
        _end(file, container, code if code >= 0 else 128 - code)
    elif request["script"] == "talks":
        file.with_suffix(".log").write_text("the runner can't start\n")
        container["started"] = time.time()
        _end(file, container, TALKS)
    _until_deleted(file)
    while not remove_workers(file):
        time.sleep(0.05)
    note(file, "deleted", container["uid"])  # before the file goes, so that whoever misses it finds it in the ledger
    file.unlink(missing_ok=True)


def _wait(child: subprocess.Popen[bytes], file: Path, *, grace: float = GRACE) -> int:
    """Return the runner's exit code. A deleted container gets SIGTERM, and SIGKILL after ``grace`` seconds."""
    terminated_at: float | None = None
    while (code := child.poll()) is None:
        if terminated_at is None and file.with_suffix(".deleted").exists():
            terminated_at = time.monotonic()
            os.killpg(child.pid, signal.SIGTERM)
        elif terminated_at is not None and time.monotonic() > terminated_at + grace:
            os.killpg(child.pid, signal.SIGKILL)
        time.sleep(0.05)
    return code


def _end(file: Path, container: dict[str, Any], code: int) -> None:
    while (file.parent / "lost").exists() and container["request"]["script"] == "node":
        time.sleep(0.05)  # a lost node reports nothing
    container["exit_code"], container["finished"] = code, time.time()
    _write(file, container)
    note(file, "ended", container["uid"])


def _until_admitted(file: Path) -> None:
    while (file.parent / "suspend").exists() and not file.with_suffix(".deleted").exists():
        time.sleep(0.05)


def _write(file: Path, container: dict[str, Any]) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(container))
    draft.replace(file)


def _until_deleted(file: Path) -> None:
    """Wait for the deletion, an hour at most, or until the folder is gone."""
    end = time.monotonic() + 3600
    while time.monotonic() < end and file.exists() and not file.with_suffix(".deleted").exists():
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
