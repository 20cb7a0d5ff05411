"""Seal and open: how code and values travel between processes, and how they are signed."""

from __future__ import annotations

from dispatcher.payload.keys import KeyRing
from dispatcher.payload.pickles import PYTHON, pack, packages, unpack
from dispatcher.payload.values import from_value, to_value

__all__ = ["PYTHON", "KeyRing", "from_value", "pack", "packages", "to_value", "unpack"]
