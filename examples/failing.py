"""A flow that fails: the client gets its exception and its traceback.

dispatcher run examples/failing.py:read_missing -p path=no-such-file.md
"""

from __future__ import annotations

from pathlib import Path

from dispatcher import context, flow


@flow(tags=["demo"])
def read_missing(path: str) -> int:
    """Return the length of a file that doesn't exist."""
    context.logger.info("reading %s", path)
    return len(Path(path).read_text(encoding="utf-8"))
