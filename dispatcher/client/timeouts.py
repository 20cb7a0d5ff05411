"""The timeouts of waits, checked before anything waits. For the modules of this package."""

from __future__ import annotations

from dispatcher.errors import InvalidInput
from dispatcher.support.durations import Seconds, seconds_of
from dispatcher.support.escaping import shown

#: Longest wait in seconds, some 300 years; more would overflow the clocks of the system.
_LONGEST = 9e9


def checked_timeout(timeout: Seconds | None) -> float | None:
    """Return the seconds of a wait's ``timeout``; None waits for ever, and what is over already is 0.

    Raises:
        InvalidInput: it is neither a number nor a timedelta, or longer than 300 years.
    """
    if timeout is None:
        return None
    seconds = seconds_of(timeout)
    if seconds is None or seconds > _LONGEST:
        raise InvalidInput(
            f"timeout: must be seconds (a number or a timedelta) up to {_LONGEST:.0e}, got {shown(timeout)}; "
            "leave it out to wait for ever"
        )
    return max(0.0, float(seconds))
