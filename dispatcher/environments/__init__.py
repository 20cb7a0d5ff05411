"""Execution environments: their base class and their callbacks. Read :mod:`dispatcher.environments.base` next."""

from __future__ import annotations

from dispatcher.environments.base import Environment, from_json

__all__ = ["Environment", "from_json"]
