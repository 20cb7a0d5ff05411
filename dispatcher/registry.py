"""Environments, backends and storages by name. The one place of this package that reaches upwards, and by name only.

Modules are imported on use. Distributions join through entry points, whose groups are ``dispatcher.environments``,
``dispatcher.backends`` and ``dispatcher.storages``; our own names can't be taken over.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dispatcher.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from backends.base import Backend
    from dispatcher.environments.base import Environment
    from dispatcher.storage.base import Storage


@dataclass(frozen=True)
class Group:
    """Names of one kind: ``module:attribute`` of ours, and the group of entry points for others'."""

    kind: str
    group: str
    ours: Mapping[str, str]
    extras: Mapping[str, str] = field(default_factory=dict)  #: name → the extra that brings what it imports
    for_tests: frozenset[str] = frozenset()  #: names that people aren't told of

    def get(self, name: str) -> Any:
        """Return the object that ``name`` stands for.

        Raises:
            InvalidInput: nothing of this name; lists those known.
            MissingExtra: it needs a package that isn't installed.
        """
        if name in self.ours:
            return self._import(name, self.ours[name])
        for entry in metadata.entry_points(group=self.group, name=name):
            return self._import(name, entry.value)
        raise InvalidInput(f"unknown {self.kind} {name!r}; known: {', '.join(self.names())}")

    def names(self) -> list[str]:
        """All names that people are told of, sorted."""
        return sorted({*self.ours, *(entry.name for entry in metadata.entry_points(group=self.group))} - self.for_tests)

    def _import(self, name: str, target: str) -> Any:
        module, _, attribute = target.partition(":")
        if (known := getattr(sys.modules.get(module), attribute.strip(), None)) is not None:
            return known
        try:
            return getattr(importlib.import_module(module), attribute.strip())
        except ImportError as error:
            if name in self.extras:
                extra = self.extras[name]
                raise MissingExtra(
                    f"{self.kind} {name} needs {error.name}: pip install 'flow-dispatcher[{extra}]'"
                ) from error
            why = shadowed(error) or error
            raise InvalidInput(f"{self.kind} {name!r} can't be imported from {target!r}: {why}") from error
        except AttributeError as error:
            raise InvalidInput(f"{self.kind} {name!r} isn't in {target!r}: {error}") from error


ENVIRONMENTS = Group(
    "environment",
    "dispatcher.environments",
    {
        "FakeEnvironment": "backends.fake:FakeEnvironment",
        "KubernetesJobEnvironment": "backends.kubernetes.environment:KubernetesJobEnvironment",
        "LocalEnvironment": "backends.local:LocalEnvironment",
        "RemoteEnvironment": "backends.remote:RemoteEnvironment",
    },
    for_tests=frozenset({"FakeEnvironment"}),
)
BACKENDS = Group(
    "backend",
    "dispatcher.backends",
    {
        "fake": "backends.fake:FakeBackend",
        "kubernetes": "backends.kubernetes.backend:KubernetesBackend",
        "local": "backends.local:LocalBackend",
        "remote": "backends.remote:RemoteBackend",
    },
    extras={"kubernetes": "kubernetes"},
    for_tests=frozenset({"fake"}),
)
STORAGES = Group(
    "storage",
    "dispatcher.storages",
    {
        "DockerStorage": "dispatcher.storage.docker.storage:DockerStorage",
        "RedisStorage": "dispatcher.storage.redis:RedisStorage",
        "LocalStorage": "dispatcher.storage.local:LocalStorage",
        "ModuleStorage": "dispatcher.storage.module:ModuleStorage",
    },
)


def shadowed(error: ImportError) -> str:
    """Say what stands in the place of our package ``backends``, if that is why an import failed; else empty."""
    found = sys.modules.get("backends")
    if found is None or (error.name or "").partition(".")[0] != "backends":
        return ""
    there = Path(next(iter(getattr(found, "__path__", [])), "") or getattr(found, "__file__", None) or "?")
    if there == Path(__file__).parent.parent / "backends":
        return ""
    return (
        f"Python finds {there} in place of our package 'backends': rename yours, or keep its directory off the front "
        "of the import path (python -P, PYTHONPATH)"
    )


def environment(name: str) -> type[Environment]:
    """The environment class of this name."""
    return cast("type[Environment]", ENVIRONMENTS.get(name))


def backend(name: str) -> type[Backend]:
    """The backend class of this name."""
    return cast("type[Backend]", BACKENDS.get(name))


def storage(name: str) -> type[Storage]:
    """The storage class of this name."""
    return cast("type[Storage]", STORAGES.get(name))
