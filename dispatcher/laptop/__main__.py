"""``python -m dispatcher.laptop STATE_DIRECTORY DESCRIPTOR``: run the laptop server's daemon. Internal."""

from __future__ import annotations

import sys
from pathlib import Path

from dispatcher.laptop.daemon import run
from dispatcher.laptop.paths import LaptopPaths

if __name__ == "__main__":
    run(LaptopPaths(Path(sys.argv[1])), int(sys.argv[2]))
