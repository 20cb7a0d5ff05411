"""Names of signals, for messages about processes that a signal ended."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """Return the name of a signal: ``SIGKILL``; ``signal 35`` where Python has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
