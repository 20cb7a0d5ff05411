"""``python -m dispatcher.runner``: what a container runs. Started by a backend, with the variables of
:class:`~dispatcher.runner.assignment.Assignment`.

Exits 0 when the attempt's end was reported, whatever that end was, and when another process holds the attempt.
"""

from __future__ import annotations

import os
import signal
import sys

from dispatcher.errors import DispatcherError
from dispatcher.records.redis import open_redis
from dispatcher.runner.assignment import Assignment
from dispatcher.runner.contained import Contained
from dispatcher.settings import Settings


def main() -> int:
    """Run the assigned attempt; the exit status."""
    try:
        assignment = Assignment.take(os.environ)
        settings = Settings.load()
        records = open_redis(assignment.url)
    except DispatcherError as error:
        sys.stderr.write(f"runner: {error}\n")
        return 2
    runner = Contained(assignment, records, settings)
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    signal.signal(signal.SIGALRM, lambda *_: runner.time_out())
    try:
        record = runner.claim()
        if record is None:
            runner.stand_by()
            return 0
        signal.setitimer(signal.ITIMER_REAL, record.spec.options.timeout or 0)
        runner.run(record)
    finally:
        records.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
