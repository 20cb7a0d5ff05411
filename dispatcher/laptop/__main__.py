"""``python -m dispatcher.laptop STATE_DIRECTORY DESCRIPTOR``: the laptop server's keeper. Started by ours alone."""

from __future__ import annotations

import sys
from pathlib import Path

from dispatcher.laptop.daemon import keep
from dispatcher.laptop.paths import Places

if __name__ == "__main__":
    keep(Places(Path(sys.argv[1])), int(sys.argv[2]))
