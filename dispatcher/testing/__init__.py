"""Tests of the contracts of backends and storages, for their authors; they need the extra ``testing``.

Subclass :class:`BackendContract` or :class:`StorageContract` in a test module of yours, and override its fixture
``service``. The project's own backends and storages are held to the same tests.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.testing.backends import BackendContract, BackendService
    from dispatcher.testing.storages import StorageContract, StorageService
    from dispatcher.testing.waiting import wait_until

__all__ = ["BackendContract", "BackendService", "StorageContract", "StorageService", "wait_until"]

_HOMES = {
    "BackendContract": "dispatcher.testing.backends",
    "BackendService": "dispatcher.testing.backends",
    "StorageContract": "dispatcher.testing.storages",
    "StorageService": "dispatcher.testing.storages",
    "wait_until": "dispatcher.testing.waiting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import pytest
    except ImportError as error:
        from dispatcher.errors import MissingExtra

        raise MissingExtra(f"{__name__} needs {error.name}: pip install 'flow-dispatcher[testing]'") from error
    pytest.register_assert_rewrite("dispatcher.testing.backends", "dispatcher.testing.storages")
    return getattr(import_module(_HOMES[name]), name)
