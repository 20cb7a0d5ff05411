"""The Lua scripts: functions of one library, which the server keeps, on its disk and its replicas too.

Library and functions are named by their content, so that two releases live side by side on one server. Each function is
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

#: What the name of every library of ours begins with.
PREFIX = "dispatcher_"

#: What functions share, in the order in which it is defined.
_SHARED = ("bounds", "clock", "writes", "queues", "streams", "steps")

#: Each function is the body in the file of its name. Where the server's memory is full, it runs only those that need
#: none or free some, the second kind here; a write of any other is refused before it begins.
_FUNCTIONS = (
    *("accept", "acquire", "announce", "append", "claim", "commit", "guessed", "hold", "join", "own", "refuse"),
    *("release", "report", "share"),
)
_ALSO_WHEN_FULL = ("beat", "known", "purge", "remove", "repair", "retire")

#: All functions.
FUNCTIONS = (*_FUNCTIONS, *_ALSO_WHEN_FULL)

#: The fields of a record that functions reply: a record's own, and its kind (``acceptance.py``).
_RECORD_FIELDS = (*(one.name for one in fields(Record)), "kind")

# Stands for the version in the text that the version is the digest of.
_VERSION = "@VERSION@"


@dataclass(frozen=True)
class Script:
    """A function by its name on the server."""

    name: str

    def command(self, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
        """The command that runs it."""
        return ("FCALL", self.name, len(keys), *keys, *arguments)


@dataclass(frozen=True)
class Library:
    """All functions: their library's name, and the text to load."""

    name: str
    text: str


@cache
def library() -> Library:
    """The library of this release."""
    names = ", ".join(f"'{name}'" for name in _RECORD_FIELDS)
    shared = (f"local RECORD_FIELDS = {{{names}}}", *map(_read, _SHARED))
    functions = map(_registered, FUNCTIONS)
    text = "\n".join([f"#!lua name={PREFIX}{_VERSION}", *shared, *functions])
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Library(f"{PREFIX}{version}", text.replace(_VERSION, version))


@cache
def script(name: str) -> Script:
    """The function of a file."""
    if name not in FUNCTIONS:
        raise ValueError(f"{name} is no function")
    return Script(f"{name}_{library().name.removeprefix(PREFIX)}")


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def _registered(name: str) -> str:
    flags = "'allow-oom'" if name in _ALSO_WHEN_FULL else ""
    asked = f"local over = too_much('{name}', KEYS, ARGV)\nif over then return over end"
    callback = f"function(KEYS, ARGV)\n{asked}\n{_read(name)}\nend"
    return f"redis.register_function{{function_name='{name}_{_VERSION}', flags={{{flags}}}, callback={callback}}}"
