"""The time for which the signature of a spec holds. Pure."""

from __future__ import annotations

import math

from dispatcher.runs.options import DEFAULT_RESULT_TTL, Options
from dispatcher.runs.retry import FREE, FREE_LIMIT, Retry

#: Seconds to which the end of a signature is rounded up, where nothing bounds the run: submits of one day are alike.
DAY = 86400.0

#: Seconds that a signature holds beyond the time that all attempts may take.
SLACK = 3600.0


def expiry(options: Options, now: float, *, unbounded: float) -> float:
    """When the signature of a run submitted ``now`` expires, in seconds since the epoch.

    Args:
        options: the run's.
        now: the server's clock.
        unbounded: seconds that it holds where nothing bounds the run's attempts, beside its retention.
    """
    within = lifetime(options)
    if within is not None:
        return now + within
    ttl = options.result_ttl or DEFAULT_RESULT_TTL
    return math.ceil((now + unbounded + ttl) / DAY) * DAY


def lifetime(options: Options) -> float | None:
    """Seconds within which all attempts of a run are over, and an hour; None if nothing bounds them."""
    if options.timeout is None or options.start_within is None:
        return None
    retry = options.retries or Retry(0)
    free = FREE_LIMIT if retry.count and retry.on & FREE else 0
    pauses = retry.pauses(retry.count) + retry.pauses(free)
    total = (1 + retry.count + free) * (options.timeout + options.start_within) + pauses + SLACK
    return total if total < 1e10 else None
