"""``python -m dispatcher.laptop STATE_DIRECTORY DESCRIPTOR``: the laptop server's keeper. Started by ours alone."""

from __future__ import annotations

import sys
from pathlib import Path

from dispatcher.laptop.daemon import keep
from dispatcher.laptop.paths import LaptopPaths

if __name__ == "__main__":
    keep(LaptopPaths(Path(sys.argv[1])), int(sys.argv[2]))
