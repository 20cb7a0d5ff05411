"""One run per file: ``client.map`` submits them in few round trips, ``client.as_completed`` yields each as it ends.

dispatcher run examples/fan_out.py:longest_line -p path=README.md
"""

from __future__ import annotations

from pathlib import Path

from dispatcher import flow


@flow(tags=["demo"])
def longest_line(path: str) -> tuple[int, int]:
    """Return the length of a file's longest line, and the line's number."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    print(f"{path} has {len(lines)} lines")
    return max((len(line), number) for number, line in enumerate(lines, start=1))
