"""A program that uses the laptop server, as a child process of the tests, which send it commands on stdin."""

from __future__ import annotations

import json
import os
import sys
import time

from dispatcher import laptop
from dispatcher.settings import Settings


def main() -> None:
    """Join, print the answer, and execute commands until stdin ends."""
    joined = laptop.join(Settings.load())
    _answer({"url": joined.url, "scope": joined.scope})
    for line in sys.stdin:
        word = line.strip()
        if word == "worker":
            worker = joined.ensure_worker()
            _answer({"pid": worker.process.pid, "scope": worker.scope, "cwd": worker.cwd})
        elif word == "leave":
            joined.leave()
            _answer({})
        elif word == "fork":
            child = os.fork()
            if not child:
                time.sleep(60)
                os._exit(0)
            _answer({"pid": child})


def _answer(content: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
