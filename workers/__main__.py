"""``python -m workers``: a worker configured by the ``DISPATCHER__…`` variables, for people, images and ``spawn``."""

from __future__ import annotations

import sys

from dispatcher.errors import DispatcherError, ServerUnavailable
from dispatcher.settings import Settings
from dispatcher.support.escaping import escaped

#: Exit codes, the same as of the command ``dispatcher``: bad input; a server that can't be reached, or refuses.
BAD_INPUT, UNAVAILABLE = 2, 6


def main() -> int:
    """Run a worker until it is stopped. Return its exit status."""
    from workers.bootstrap import run_worker

    try:
        return run_worker(Settings.load())
    except DispatcherError as error:
        sys.stderr.write(f"worker: {escaped(str(error))}\n")
        return UNAVAILABLE if isinstance(error, ServerUnavailable) else BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
