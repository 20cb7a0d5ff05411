"""The node of the toy container service: one process per container, started by :mod:`backends.fake`.

It creates the container's file (refusing a second one of that name), starts the runner where the script says so,
waits for it, and notes its end. It removes the file once it was deleted and its process has ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from backends.fake import GRACE, RUNS, TALKS


def main(request: dict[str, Any]) -> None:
    """Play one container from its creation to its end."""
    file = Path(request["directory"]) / f"{request['name']}.json"
    found: dict[str, Any] = {"uid": uuid4().hex, "request": request, "pid": None, "exit_code": None}
    found["created"] = time.time()
    if not _create(file, found):
        return
    _note(file, "created", found["uid"])
    if request["script"] == "queued":
        _until_admitted(file)
    if request["script"] in RUNS and not file.with_suffix(".deleted").exists():
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
    file.unlink(missing_ok=True)
    _note(file, "deleted", found["uid"])


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
    _note(file, "ended", found["uid"])


def _until_admitted(file: Path) -> None:
    while (file.parent / "suspend").exists() and not file.with_suffix(".deleted").exists():
        time.sleep(0.05)


def _create(file: Path, found: dict[str, Any]) -> bool:
    draft = file.with_suffix(f".{found['uid']}")
    draft.write_text(json.dumps(found))
    try:
        os.link(draft, file)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _write(file: Path, found: dict[str, Any]) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(found))
    draft.replace(file)


def _note(file: Path, what: str, uid: Any) -> None:
    line = json.dumps({"time": time.time(), "what": what, "name": file.stem, "uid": uid})
    with (file.parent / "ledger.jsonl").open("a") as ledger:
        ledger.write(line + "\n")


def _until_deleted(file: Path) -> None:
    """Wait for the deletion; a container nobody asks for again is dropped with its folder, or after an hour."""
    end = time.monotonic() + 3600
    while time.monotonic() < end and file.exists() and not file.with_suffix(".deleted").exists():
        time.sleep(0.1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
