"""The backends of one process, each made on first use and then kept: they hold connections."""

from __future__ import annotations

import os

from backends.base import Backend
from dispatcher import registry
from dispatcher.settings import Settings


class BackendCache:
    """Backends by name. A fork's child makes its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[tuple[int, str], Backend] = {}

    def __call__(self, name: str) -> Backend:
        """The backend of that name."""
        key = (os.getpid(), name)
        if key not in self._made:
            self._made[key] = registry.backend(name)(self._settings)
        return self._made[key]

    def close(self) -> None:
        """Close those of this process."""
        for (pid, _), backend in self._made.items():
            if pid == os.getpid():
                backend.close()
