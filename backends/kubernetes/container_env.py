"""Variables of a container as Kubernetes writes them. Pure; used by the modules that build manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def plain(variables: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return variables with their values."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def of_secrets(references: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return variables whose values are keys of Secrets.

    Args:
        references: ``secret/key`` by variable.
    """
    env = []
    for variable, reference in references.items():
        name, _, key = reference.partition("/")
        env.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}})
    return env


def merged(env: Iterable[Mapping[str, Any]] | None, overrides: Iterable[dict[str, Any]]) -> list[Any]:
    """Return a container's variables, replaced and extended by ``overrides``.

    A replaced variable keeps its place, because later ones may refer to it: ``$(NAME)``.
    """
    rest = {entry["name"]: entry for entry in overrides}
    replaced = set(rest)
    result = []
    for entry in env or ():
        if entry.get("name") not in replaced:
            result.append(entry)
        elif entry["name"] in rest:
            result.append(rest.pop(entry["name"]))
    return [*result, *rest.values()]
