"""The programs that use the laptop server: a file each, locked by the program for as long as it lives.

The kernel unlocks the file of a program that crashed, so none is counted for ever.
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
    """A program that has joined, for people: its process and the start of its command."""

    process: Process
    command: str


class Membership:
    """This program's file. It ends with :meth:`end`, or with the program; a forked child isn't a member."""

    def __init__(self, places: LaptopPaths) -> None:
        name = secrets.token_hex(8)
        hidden = places.programs / f".{name}"  # not counted, so not removed either, until it is locked
        descriptor = take(hidden)
        if descriptor is None:
            raise ServerUnavailable(f"can't lock {hidden}")
        os.write(descriptor, json.dumps({**_myself().to_json(), "command": _command()}).encode())
        self._path = places.programs / name
        hidden.rename(self._path)
        self._descriptor: int | None = descriptor
        self._pid = os.getpid()
        _here.add(self)

    def end(self) -> None:
        """Leave. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and self._pid == os.getpid():
            self._path.unlink(missing_ok=True)
            os.close(descriptor)

    def forked(self) -> None:
        """In a forked child: let go of the file without leaving, or a child would keep the server up."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


_here: weakref.WeakSet[Membership] = weakref.WeakSet()


def _after_fork() -> None:
    for one in list(_here):
        one.forked()


os.register_at_fork(after_in_child=_after_fork)


def living(places: LaptopPaths) -> list[Program]:
    """The programs that have joined and not left. Removes the files of those that crashed."""
    found = []
    for path in _files(places.programs):
        if not held(path):
            path.unlink(missing_ok=True)
            continue
        data = read(path)
        if (process := Process.from_json(data)) is not None:
            found.append(Program(process=process, command=str(data.get("command", ""))))
    return sorted(found, key=lambda one: one.process.pid)


def _files(directory: Path) -> Iterator[Path]:
    try:
        yield from [path for path in directory.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return


def _myself() -> Process:
    return Process.of(os.getpid()) or Process(os.getpid(), "unknown")


def _command() -> str:
    return " ".join(getattr(sys, "orig_argv", sys.argv)[:4])[:200]
