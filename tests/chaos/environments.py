"""Where runs of fault tests go: an environment of each backend, with callbacks that keep an account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.fake import FakeEnvironment
from dispatcher import LocalEnvironment, RemoteEnvironment
from dispatcher.environments.base import Environment
from tests.chaos.flows import callbacks


def environment_of(backend: str, folder: Path, service: Path) -> Environment:
    """An environment of ``backend``; ``folder`` holds the account, ``service`` plays the container service."""
    given: dict[str, Any] = callbacks(folder)
    match backend:
        case "local":
            return LocalEnvironment(**given)
        case "remote":
            return RemoteEnvironment(**given)
    return FakeEnvironment(service, **given)
