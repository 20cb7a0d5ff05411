"""The error of a request that a worker's settings don't allow."""

from __future__ import annotations

from dispatcher.errors import Permanent
from dispatcher.runs.states import Cause


def refused(message: str) -> Permanent:
    """Return the error that ends an attempt whose request may not be sent."""
    return Permanent(message, cause=Cause.CONFIG_ERROR, reason="Refused")
