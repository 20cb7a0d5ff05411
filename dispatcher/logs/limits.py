"""The size limits of results and logs, as an interface: a runner in a container has them without pydantic.

Implemented by :class:`dispatcher.settings.LimitSettings` and in :mod:`dispatcher.runner.settings`.
"""

from __future__ import annotations

from typing import Protocol


class Limits(Protocol):
    """Sizes, in bytes; described at :class:`~dispatcher.settings.LimitSettings`."""

    @property
    def inline(self) -> int: ...
    @property
    def result(self) -> int: ...
    @property
    def log(self) -> int: ...
    @property
    def line(self) -> int: ...
