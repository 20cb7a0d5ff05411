"""Failpoints: tests make a process end, freeze or lose a reply there. No-ops unless ``DISPATCHER__FAILPOINT`` is set.

``failpoint(name)`` stands between two side effects, in any of our packages. The variable holds either ::

    name=kind[@n];name=kind        fires once, at the n-th pass of this process (default: the first)
    /a/folder                      fires for each file ``name`` or ``name+run`` in it, once in all processes together

where a file contains the kind, and is moved to ``fired/`` as it fires. ``passed.jsonl`` there records each pass. Kinds:

=====================  ======================================================================
``exit137``            SIGKILL to this process
``worker137``          SIGKILL to its parent, then to itself: a pool process takes its worker with it
``raise``              an unexpected error
``freeze:SECONDS``     SIGSTOP to this process, SIGCONT after so many seconds
``worker_freeze:…``    the same, with its parent
``reply_lost``         the step before was done, but its caller gets an error, as if the reply was lost
=====================  ======================================================================
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

VARIABLE = "DISPATCHER__FAILPOINT"


class FailpointError(Exception):
    """Raised by failpoints of the kind ``raise``."""


def failpoint(name: str, run_id: str = "", *, lost: type[Exception] | None = None) -> None:
    """Pass a failpoint.

    Args:
        name: a unique literal, such as ``noun.done``; tests find all names by reading the source.
        run_id: the current run, if there is one.
        lost: the exception that ``reply_lost`` raises; default ``ServerUnavailable``.
    """
    if _armed is not None:
        _armed.passed(name, run_id, lost)


class _Listed:
    """Failpoints armed by a list of names."""

    def __init__(self, text: str) -> None:
        self._left: dict[str, tuple[str, int]] = {}
        for entry in filter(None, text.split(";")):
            name, _, rest = entry.partition("=")
            kind, _, count = rest.partition("@")
            self._left[name] = kind, int(count or 1)

    def passed(self, name: str, run_id: str, lost: type[Exception] | None) -> None:
        if name not in self._left:
            return
        kind, count = self._left.pop(name)
        if count > 1:
            self._left[name] = kind, count - 1
        else:
            _fire(kind, name, lost)


class _Folder:
    """Failpoints armed by files, while processes run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def passed(self, name: str, run_id: str, lost: type[Exception] | None) -> None:
        program = " ".join(sys.orig_argv[1:])
        line = json.dumps({"name": name, "run": run_id, "pid": os.getpid(), "program": program}) + "\n"
        with (self._folder / "passed.jsonl").open("a") as file:
            file.write(line)
        for arm in dict.fromkeys((f"{name}+{run_id}", name)):
            fired = self._folder / "fired" / f"{arm}.{os.getpid()}"
            try:
                (self._folder / arm).rename(fired)
            except FileNotFoundError:
                continue
            _fire(fired.read_text(), name, lost)


def _fire(kind: str, name: str, lost: type[Exception] | None) -> None:
    action, _, seconds = kind.partition(":")
    parent = [os.getppid()] if action.startswith("worker") and os.getppid() > 1 else []
    pids = [*parent, os.getpid()]
    match action.removeprefix("worker_").removeprefix("worker"):
        case "exit137" | "137":
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            time.sleep(60)  # until the signal is delivered
        case "raise":
            raise FailpointError(f"failpoint {name}")
        case "freeze":
            _freeze(pids, float(seconds))
        case "reply_lost":
            from dispatcher.errors import ServerUnavailable

            raise (lost or ServerUnavailable)(f"failpoint {name}: the reply was lost")
        case _:
            raise ValueError(f"{VARIABLE}: unknown kind {kind!r}")


def _freeze(pids: list[int], seconds: float) -> None:
    """Stop processes, and have a shell's child in its own process group wake them: they can't do so themselves.

    ``subprocess`` would wait for a pipe to close, which a pool process forked at the same moment holds open.
    """
    names = " ".join(map(str, pids))
    script = f"(kill -STOP {names}; sleep {seconds}; kill -CONT {names}) &"
    before = time.monotonic()
    os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ, setpgroup=0), 0)
    while time.monotonic() - before < seconds:
        time.sleep(0.01)


def arm(text: str) -> None:
    """Arm this process as the variable does; an empty text disarms it. For tests."""
    global _armed  # noqa: PLW0603 - one per process, read at every pass
    _armed = None if not text else _Folder(Path(text)) if "=" not in text else _Listed(text)


_armed: _Listed | _Folder | None = None
arm(os.environ.get(VARIABLE, ""))
