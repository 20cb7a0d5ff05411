"""The facts of a request that a person looks for first: which Job, where, of which image, with which resources. Pure.

The request comes from a record, which anybody may have written: a part that isn't as a worker writes it is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from backends.base import Request


def summary(request: Request) -> dict[str, str]:
    """Return the facts of a request by name, for people. Empty ones are left out."""
    job = _mapping(request.get("job"))
    container = _flow_container(job, request.get("container"))
    facts = {
        "job": _mapping(job.get("metadata")).get("name"),
        "namespace": request.get("namespace"),
        "cluster": request.get("cluster"),
        "image": container.get("image"),
        "resources": _resources(container),
    }
    return {name: _text(value) for name, value in facts.items() if value}


def resources_of(pod: Any, container: Any) -> str:
    """Return requests and limits of the container of this name in a Pod; empty if it has none."""
    return _resources(_container(_mapping(pod).get("spec"), container))


def _flow_container(job: Mapping[str, Any], name: Any) -> Mapping[str, Any]:
    return _container(_mapping(_mapping(job.get("spec")).get("template")).get("spec"), name)


def _container(spec: Any, name: Any) -> Mapping[str, Any]:
    containers = _mapping(spec).get("containers")
    named = [_mapping(item) for item in containers] if isinstance(containers, list) else []
    return next((container for container in named if container.get("name") == name), {})


def _resources(container: Mapping[str, Any]) -> str:
    resources = _mapping(container.get("resources"))
    return "; ".join(
        f"{kind}: {', '.join(f'{name} {_text(amount)}' for name, amount in _mapping(resources.get(kind)).items())}"
        for kind in ("requests", "limits")
        if _mapping(resources.get(kind))
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
