"""Flows that keep an account of what user code was started, and that die as they are told."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatcher import context, flow

MARKS = "marks.jsonl"

#: Characters of a large result.
LARGE = 5 * 2**20


@dataclass(frozen=True)
class Mark:
    """A start of user code. ``step`` is flow, on_start or on_exit; ``real`` is by a clock that no test skews."""

    step: str
    run: str
    attempt: int
    pid: int
    at: float
    real: float = math.inf


def write_mark(folder: str, step: str) -> None:
    """Append a line; short ones are written whole."""
    mark = {"step": step, "run": context.run_id, "attempt": context.attempt, "pid": os.getpid(), "at": time.time()}
    mark["real"] = time.clock_gettime(time.CLOCK_REALTIME)
    with (Path(folder) / MARKS).open("a") as file:
        file.write(json.dumps(mark) + "\n")


def read_marks(folder: Path) -> list[Mark]:
    """All of them, in order."""
    file = folder / MARKS
    return [Mark(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def callbacks(folder: Path) -> dict[str, Any]:
    """``on_start`` and ``on_exit`` for an environment."""
    place = str(folder)

    def on_start() -> None:
        write_mark(place, "on_start")

    def on_exit() -> None:
        write_mark(place, "on_exit")

    return {"on_start": on_start, "on_exit": on_exit}


def first_time(folder: str, step: str) -> bool:
    """Return True if this run never did ``step`` before, in any attempt."""
    try:
        (Path(folder) / f"{step}-{context.run_id}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def hold(folder: str) -> None:
    """Go on only once the file ``released`` is there."""
    while not (Path(folder) / "released").exists():
        time.sleep(0.05)


def stay(seconds: float) -> None:
    """Stay, whoever asks for an end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            time.sleep(seconds)


@flow
def marked(folder: str, way: str = "plain", seconds: float = 0.0, ballast: str = "") -> int:
    """Gives the number of its attempt back; goes its ``way``, most of them at the first attempt alone."""
    write_mark(folder, "flow")
    print(f"attempt {context.attempt} begins")  # noqa: T201 - a line for its log
    match way:
        case "lasts":
            time.sleep(60)
        case "stubborn":
            stay(60)
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
    print(f"attempt {context.attempt} ends")  # noqa: T201
    return int(context.attempt or 0)


@flow
def large(folder: str) -> str:
    """Gives the number of its attempt back, in more bytes than one part of a blob has."""
    write_mark(folder, "flow")
    print(f"attempt {context.attempt}")  # noqa: T201
    return str(context.attempt).ljust(LARGE)
