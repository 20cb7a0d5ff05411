"""Environments of fault tests: one of each backend, with callbacks that write marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.fake import FakeEnvironment
from dispatcher import LocalEnvironment, RemoteEnvironment
from dispatcher.environments.base import Environment
from tests.chaos.flows import callbacks


def environment_of(backend: str, folder: Path, service: Path) -> Environment:
    """An environment of ``backend``; ``folder`` is for the marks, ``service`` for the container service."""
    account: dict[str, Any] = callbacks(folder)
    match backend:
        case "local":
            return LocalEnvironment(**account)
        case "remote":
            return RemoteEnvironment(**account)
    return FakeEnvironment(service, workers=(2, 3), **account)
