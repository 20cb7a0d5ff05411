"""The Lua scripts in ``lua/``, as functions of one library that the server stores, on disk and on replicas, too.

Library and functions are named by the digest of their text, so that two releases can use one server. Each function is
safe to run twice. Needs Redis 7.0 or Valkey 7.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from dispatcher.runs.record import Record

_FOLDER = Path(__file__).with_name("lua")

#: The prefix of the libraries' names.
PREFIX = "dispatcher_"

#: Files with definitions that the functions share, in the order of their use.
_SHARED = ("bounds", "clock", "writes", "queues", "streams", "steps", "templates")

#: Each function's body is the file of its name. If the server's memory is full, it runs only the second group, which
#: needs none or frees some, and refuses all others before their first write.
_FUNCTIONS = (
    *("accept", "acquire", "announce", "append", "claim", "commit", "hold", "join", "own", "prepared"),
    *("refuse", "release", "report", "share"),
)
_ALSO_WHEN_FULL = ("beat", "displace", "known", "purge", "remove", "repair", "retire")

#: All functions.
FUNCTIONS = (*_FUNCTIONS, *_ALSO_WHEN_FULL)

#: The fields of a record that functions return: those of :class:`Record`, and the kind (``run_scripts/accept.py``).
_RECORD_FIELDS = (*(field.name for field in fields(Record)), "kind")

# Stands for the version in the text whose digest becomes the version.
_VERSION = "@VERSION@"


@dataclass(frozen=True)
class Script:
    """A function, by its name on the server."""

    name: str

    def command(self, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
        """Return the command that calls it."""
        return ("FCALL", self.name, len(keys), *keys, *arguments)


@dataclass(frozen=True)
class Library:
    """The library of all functions: its name, and the text to load."""

    name: str
    text: str


@cache
def library() -> Library:
    """Return the library of this release."""
    names = ", ".join(f"'{name}'" for name in _RECORD_FIELDS)
    shared = (f"local RECORD_FIELDS = {{{names}}}", *map(_read, _SHARED))
    functions = map(_registration, FUNCTIONS)
    text = "\n".join([f"#!lua name={PREFIX}{_VERSION}", *shared, *functions])
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Library(f"{PREFIX}{version}", text.replace(_VERSION, version))


@cache
def script(name: str) -> Script:
    """Return the function of the file ``lua/<name>.lua``."""
    if name not in FUNCTIONS:
        raise ValueError(f"{name} is not a function of the library")
    return Script(f"{name}_{library().name.removeprefix(PREFIX)}")


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def _registration(name: str) -> str:
    flags = "'allow-oom'" if name in _ALSO_WHEN_FULL else ""
    check = f"local over = too_much('{name}', KEYS, ARGV)\nif over then return over end"
    callback = f"function(KEYS, ARGV)\nbegin_call()\n{check}\n{_read(name)}\nend"
    return f"redis.register_function{{function_name='{name}_{_VERSION}', flags={{{flags}}}, callback={callback}}}"
