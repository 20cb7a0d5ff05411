"""The backends of one process, each created at its first use and reused, because they hold connections."""

from __future__ import annotations

import os

from backends.base import Backend
from dispatcher import registry
from dispatcher.settings import Settings


class BackendCache:
    """Backends by name. A forked process creates its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backends: dict[tuple[int, str], Backend] = {}

    def __call__(self, name: str) -> Backend:
        """Return the backend of that name."""
        key = (os.getpid(), name)
        if key not in self._backends:
            self._backends[key] = registry.backend(name)(self._settings)
        return self._backends[key]

    def close(self) -> None:
        """Close the backends of this process."""
        for (pid, _), backend in self._backends.items():
            if pid == os.getpid():
                backend.close()
