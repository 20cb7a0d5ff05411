"""Flows that keep an account of what user code was started, and that die as they are told."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dispatcher import context, flow

MARKS = "marks.jsonl"


@dataclass(frozen=True)
class Mark:
    """User code was started: ``what`` is flow, on_start or on_exit."""

    what: str
    run: str
    attempt: int
    pid: int
    at: float


def write_mark(folder: str, what: str) -> None:
    """Append a line; short ones are written whole."""
    mark = {"what": what, "run": context.run_id, "attempt": context.attempt, "pid": os.getpid(), "at": time.time()}
    with (Path(folder) / MARKS).open("a") as file:
        file.write(json.dumps(mark) + "\n")


def read_marks(folder: Path) -> list[Mark]:
    """All of them, in order."""
    file = folder / MARKS
    return [Mark(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def callbacks(folder: Path) -> dict[str, Callable[[], None]]:
    """``on_start`` and ``on_exit`` for an environment."""
    place = str(folder)

    def on_start() -> None:
        write_mark(place, "on_start")

    def on_exit() -> None:
        write_mark(place, "on_exit")

    return {"on_start": on_start, "on_exit": on_exit}


def first_time(folder: str, what: str) -> bool:
    """Whether this run never did ``what`` before, in any attempt."""
    try:
        (Path(folder) / f"{what}-{context.run_id}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def hold(folder: str) -> None:
    """Go on only once the file ``released`` is there."""
    while not (Path(folder) / "released").exists():
        time.sleep(0.05)


@flow
def marked(folder: str, way: str = "plain", seconds: float = 0.0) -> int:
    """Gives the number of its attempt back; goes its ``way`` at the first attempt."""
    write_mark(folder, "flow")
    if way != "plain" and first_time(folder, way):
        match way:
            case "raises":
                raise RuntimeError("as told")
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            case "lost":
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            case "waits":
                time.sleep(60)
            case "holds":
                hold(folder)
    time.sleep(seconds)
    return int(context.attempt or 0)
