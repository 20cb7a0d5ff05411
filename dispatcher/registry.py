"""Environments, backends, storages, settings and sources of secrets by name: the entry points of distributions.

This is the one place where this package reaches upwards, and by name only: what a name stands for is imported on use.
Our own names stand in ``pyproject.toml``, as those of any other distribution; others can't take them over.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dispatcher.errors import InvalidInput, MissingExtra
from dispatcher.support.displaced_modules import displaced
from dispatcher.support.escaping import shown

if TYPE_CHECKING:
    from backends.base import Backend
    from dispatcher.environments.base import Environment
    from dispatcher.settings import SettingsGroup
    from dispatcher.storage.base import Storage

#: The distribution whose names come before those of others.
DISTRIBUTION = "flow-dispatcher"


@dataclass(frozen=True)
class Group:
    """One group of entry points.

    Args:
        kind: what its names stand for, for messages.
        group: the name of the group. Names in ``<group>.unlisted`` work too, but are shown to nobody: for tests.
    """

    kind: str
    group: str

    def get(self, name: str) -> Any:
        """Return the object that ``name`` stands for.

        Raises:
            InvalidInput: no such name, or its object can't be imported; lists the names known.
            MissingExtra: it needs a package that isn't installed.
        """
        return _object(self, name, tuple(sys.path))

    def check(self, value: object, name: str) -> None:
        """Check that workers will find the class of ``value`` by ``name``.

        Raises:
            InvalidInput: they would find none, or another.
        """
        remedy = f"register {type(value).__name__} as an entry point of the group {self.group!r}"
        try:
            registered = self.get(name)
        except MissingExtra:
            raise
        except InvalidInput as error:
            raise InvalidInput(f"{error} ({remedy})") from error
        if type(value).__name__ == name and type(value) is not registered:
            raise InvalidInput(f"{name}: another class is registered under this name; {remedy}")

    def names(self) -> list[str]:
        """Return the names for people, sorted."""
        return sorted({*self.our_names(), *(entry.name for entry in metadata.entry_points(group=self.group))})

    def our_names(self, *, unlisted: bool = False) -> list[str]:
        """Return the names of our own distribution: those for people, or those for tests."""
        group = self.unlisted if unlisted else self.group
        return sorted(entry.name for entry in _our_entry_points() if entry.group == group)

    @property
    def unlisted(self) -> str:
        """The group of the names that are shown to nobody."""
        return f"{self.group}.unlisted"

    def entry_point(self, name: str) -> metadata.EntryPoint:
        """Return the entry point of this name, our own first.

        Raises:
            InvalidInput: no such name; lists those known.
        """
        groups = (self.group, self.unlisted)
        ours = (entry for entry in _our_entry_points() if entry.group in groups and entry.name == name)
        others = (entry for group in groups for entry in metadata.entry_points(group=group, name=name))
        for entries in (ours, others):
            for entry in entries:
                return entry
        if not self.our_names():
            raise InvalidInput(f"{DISTRIBUTION} has no entry points of {self.group}: install it again")
        raise InvalidInput(f"unknown {self.kind} {shown(name)}; known: {', '.join(self.names())}")


ENVIRONMENTS = Group("environment", "dispatcher.environments")
BACKENDS = Group("backend", "dispatcher.backends")
STORAGES = Group("storage", "dispatcher.storages")
SETTINGS = Group("group of settings", "dispatcher.settings")
SECRETS = Group("source of secrets", "dispatcher.secrets")


def environment(name: str) -> type[Environment]:
    """Return the environment class of this name."""
    return cast("type[Environment]", ENVIRONMENTS.get(name))


def backend(name: str) -> type[Backend]:
    """Return the backend class of this name."""
    return cast("type[Backend]", BACKENDS.get(name))


def storage(name: str) -> type[Storage]:
    """Return the storage class of this name."""
    return cast("type[Storage]", STORAGES.get(name))


def settings_group(name: str) -> type[SettingsGroup]:
    """Return the settings class of this name."""
    return cast("type[SettingsGroup]", SETTINGS.get(name))


def shadowed(error: ImportError | AttributeError) -> str:
    """Return what stands in the place of our package ``backends``, or of a module that it needs, if that is why an
    import failed; else empty."""
    if message := displaced(error):
        return message
    package = sys.modules.get("backends")
    if package is None or (error.name or "").partition(".")[0] != "backends":
        return ""
    path = Path(next(iter(getattr(package, "__path__", [])), "") or getattr(package, "__file__", None) or "?")
    if path == Path(__file__).parent.parent / "backends":
        return ""
    return (
        f"Python finds {path} in place of our package 'backends': rename yours, or keep its directory off the front "
        "of the import path (python -P, PYTHONPATH)"
    )


@lru_cache(maxsize=1)
def _our_entry_points() -> Iterable[metadata.EntryPoint]:
    """Read those of our own distribution alone: a scan of all that is installed takes ten times as long."""
    try:
        return tuple(metadata.distribution(DISTRIBUTION).entry_points)
    except metadata.PackageNotFoundError:
        return ()


@lru_cache(maxsize=256)
def _object(group: Group, name: str, path: tuple[str, ...]) -> Any:
    """Import what a name stands for. ``path`` is where distributions are looked for: the cache holds for one."""
    entry = group.entry_point(name)
    try:
        return getattr(importlib.import_module(entry.module), entry.attr)
    except ImportError as error:
        reason = shadowed(error)
        if not reason and (extra := _extra(entry)):
            raise MissingExtra(f"{group.kind} {name} needs {error.name}: pip install {extra!r}") from error
        message = f"{group.kind} {name!r} can't be imported from {entry.value!r}: {reason or error}"
        raise InvalidInput(message) from error
    except AttributeError as error:
        problem = shadowed(error) or error
        raise InvalidInput(f"{group.kind} {name!r} isn't in {entry.value!r}: {problem}") from error


def _extra(entry: metadata.EntryPoint) -> str:
    """Return the requirement of the extra that is named as the entry point is; empty if there is none."""
    distribution = entry.dist
    if distribution is None or entry.name not in (distribution.metadata.get_all("Provides-Extra") or ()):
        return ""
    return f"{distribution.metadata['Name']}[{entry.name}]"
