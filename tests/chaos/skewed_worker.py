"""``python -m tests.chaos.skewed_worker FILE``: a worker whose wall clock is off by as many seconds as a file says.

The file may change. Its monotonic clock is right, as a machine's is whose time is set.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    file, right = Path(sys.argv[1]), time.time

    def skewed() -> float:
        """The wall clock, off."""
        return right() + float(file.read_text())

    time.time = skewed
    sys.argv = ["workers"]
    runpy.run_module("workers", run_name="__main__", alter_sys=True)
