"""``python -m workers``: a worker from the ``DISPATCHER__…`` variables. Started by people, images and ``spawn``."""

from __future__ import annotations

import sys

from dispatcher.errors import DispatcherError
from dispatcher.escaping import escaped
from dispatcher.settings import Settings


def main() -> int:
    """Run a worker until it is told to stop; its exit status."""
    from workers.bootstrap import run_worker

    try:
        return run_worker(Settings.load())
    except DispatcherError as error:
        sys.stderr.write(f"worker: {escaped(str(error))}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
