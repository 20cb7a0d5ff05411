"""The one way that tests wait."""

from __future__ import annotations

from dispatcher.testing.waiting import wait_until

__all__ = ["wait_until"]
