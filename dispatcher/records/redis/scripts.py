"""The Lua scripts, each read from its file once. Each is safe to run twice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("lua")


class Script:
    """A script's text and the digest by which the server knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


@cache
def script(*names: str) -> Script:
    """The script made of these files, one after the other."""
    return Script("\n".join((_FOLDER / f"{name}.lua").read_text(encoding="utf-8") for name in names))
