"""Count the words of files: one flow, run by a worker's process.

dispatcher run examples/word_count.py:word_count -p paths='["README.md"]'
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from dispatcher import context, flow


def words(path: str) -> list[str]:
    """Return the words of a text file, in lower case."""
    return re.findall(r"[a-z]{4,}", Path(path).read_text(encoding="utf-8").lower())


@flow(tags=["demo"])
def word_count(paths: list[str], top: int = 5) -> dict[str, int]:
    """Return the most frequent words of some files."""
    counts: Counter[str] = Counter()
    for path in paths:
        words_of_file = words(path)
        context.logger.info("%s has %d words", path, len(words_of_file))
        counts.update(words_of_file)
    return dict(counts.most_common(top))
