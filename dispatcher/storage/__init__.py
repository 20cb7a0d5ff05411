"""Storages: where the code of flows lies. Read :mod:`dispatcher.storage.base` next."""

from __future__ import annotations

from dispatcher.storage.base import Storage, from_json

__all__ = ["Storage", "from_json"]
