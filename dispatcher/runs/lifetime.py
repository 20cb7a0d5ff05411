"""The time at which the signature of a spec expires. Pure; used by :mod:`dispatcher.submission`."""

from __future__ import annotations

import math

from dispatcher.runs.options import DEFAULT_RESULT_TTL, Options
from dispatcher.runs.retry import FREE, FREE_LIMIT, Retry

#: Seconds to which an expiry is rounded up if nothing bounds the run, so that submits of one day have the same spec.
DAY = 86400.0

#: Seconds that a signature holds longer than all attempts may take.
SLACK = 3600.0


def expiry(options: Options, now: float, *, unbounded: float) -> float:
    """Return the time at which the signature of a run submitted ``now`` expires, in seconds since the epoch.

    Args:
        options: the run's options.
        now: the server's clock, in seconds since the epoch.
        unbounded: seconds that it holds in addition to the retention, if nothing bounds the run's attempts.
    """
    within = lifetime(options)
    if within is not None:
        return now + within
    ttl = options.result_ttl or DEFAULT_RESULT_TTL
    return math.ceil((now + unbounded + ttl) / DAY) * DAY


def lifetime(options: Options) -> float | None:
    """Return the most seconds that all attempts of a run may take, plus :data:`SLACK`; None if nothing bounds them."""
    if options.timeout is None or options.start_within is None:
        return None
    retry = options.retries or Retry(0)
    free = FREE_LIMIT if retry.count and retry.on & FREE else 0
    pauses = retry.pauses(retry.count) + retry.pauses(free)
    total = (1 + retry.count + free) * (options.timeout + options.start_within) + pauses + SLACK
    return total if total < 1e10 else None
