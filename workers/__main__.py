"""``python -m workers``: a worker from the ``DISPATCHER__…`` variables. Started by people, images and ``spawn``."""

from __future__ import annotations

import sys

from dispatcher.errors import DispatcherError, ServerUnavailable
from dispatcher.settings import Settings
from dispatcher.support.escaping import escaped

#: Exit codes, as those of the command: bad input, and a server that can't be reached or refuses the worker.
USAGE, NO_ANSWER = 2, 6


def main() -> int:
    """Run a worker until it is told to stop; its exit status."""
    from workers.bootstrap import run_worker

    try:
        return run_worker(Settings.load())
    except DispatcherError as error:
        sys.stderr.write(f"worker: {escaped(str(error))}\n")
        return NO_ANSWER if isinstance(error, ServerUnavailable) else USAGE


if __name__ == "__main__":
    sys.exit(main())
