"""A flow that fails: its exception and its traceback come back.

dispatcher run examples/failing.py:read_missing -p path=no-such-file.md
"""

from __future__ import annotations

from pathlib import Path

from dispatcher import flow


@flow(tags=["demo"])
def read_missing(path: str) -> int:
    """The length of a file that isn't there."""
    return len(Path(path).read_text(encoding="utf-8"))
