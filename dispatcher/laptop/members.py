"""The programs that use the laptop server. Each has a file, which it locks for as long as it lives.

The kernel unlocks the file of a program that crashed, so no program is counted for ever.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dispatcher.errors import ServerUnavailable
from dispatcher.laptop.file_locks import held, take
from dispatcher.laptop.paths import LaptopPaths, read
from dispatcher.laptop.process import Process


@dataclass(frozen=True)
class Program:
    """A program that uses the server: its process, and the beginning of its command for people."""

    process: Process
    command: str


class Membership:
    """The membership of this program. It ends by :meth:`end` or with the program; a forked child isn't a member."""

    def __init__(self, paths: LaptopPaths) -> None:
        name = secrets.token_hex(8)
        hidden = paths.programs / f".{name}"  # neither counted nor removed before it is locked
        descriptor = take(hidden)
        if descriptor is None:
            raise ServerUnavailable(f"can't lock {hidden}")
        os.write(descriptor, json.dumps({**_myself().to_json(), "command": _command()}).encode())
        self._path = paths.programs / name
        hidden.rename(self._path)
        self._descriptor: int | None = descriptor
        self._pid = os.getpid()
        _memberships.add(self)

    def end(self) -> None:
        """Remove the file. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and self._pid == os.getpid():
            self._path.unlink(missing_ok=True)
            os.close(descriptor)

    def forked(self) -> None:
        """Close the file in a forked child, which would keep the server up, without removing it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_memberships: weakref.WeakSet[Membership] = weakref.WeakSet()


def _after_fork() -> None:
    for membership in list(_memberships):
        membership.forked()


os.register_at_fork(after_in_child=_after_fork)


def living(paths: LaptopPaths) -> list[Program]:
    """Return the programs that use the server. Remove the files of those that crashed."""
    programs = []
    for path in _files(paths.programs):
        if not held(path):
            path.unlink(missing_ok=True)
            continue
        data = read(path)
        if (process := Process.from_json(data)) is not None:
            programs.append(Program(process=process, command=str(data.get("command", ""))))
    return sorted(programs, key=lambda program: program.process.pid)


def _files(directory: Path) -> Iterator[Path]:
    try:
        yield from [path for path in directory.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return


def _myself() -> Process:
    return Process.of(os.getpid()) or Process(os.getpid(), "unknown")


def _command() -> str:
    return " ".join(getattr(sys, "orig_argv", sys.argv)[:4])[:200]
