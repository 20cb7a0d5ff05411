"""Our own packages, and the folder that contains them. Used wherever our code is told from a user's."""

from __future__ import annotations

from pathlib import Path

PACKAGES = ("dispatcher", "backends", "workers")
ROOT = Path(__file__).resolve().parents[2]
