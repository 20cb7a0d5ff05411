"""A flow that fails: its exception and its traceback come back.

dispatcher run examples/failing.py:read_missing -p path=no-such-file.md
"""

from __future__ import annotations

from pathlib import Path

from dispatcher import context, flow


@flow(tags=["demo"])
def read_missing(path: str) -> int:
    """The length of a file that isn't there."""
    context.logger.info("reading %s", path)
    return len(Path(path).read_text(encoding="utf-8"))
