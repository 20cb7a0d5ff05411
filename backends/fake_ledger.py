"""The fake container service's own account of what was created, ended and deleted: ``ledger.jsonl`` in its folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def note(file: Path, event: str, uid: Any) -> None:
    """Append a line about what a file of the service stands for."""
    line = json.dumps({"time": time.time(), "what": event, "name": file.stem, "uid": uid})
    with (file.parent / "ledger.jsonl").open("a") as ledger:
        ledger.write(line + "\n")
