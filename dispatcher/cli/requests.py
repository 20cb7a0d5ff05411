"""The request of a run's current attempt to its backend, as ``show`` prints it: a summary, or all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dispatcher import registry
from dispatcher.errors import DispatcherError
from dispatcher.runs.states import State

if TYPE_CHECKING:
    from dispatcher.runs.record import Record
    from dispatcher.settings import Settings


def summary(record: Record) -> dict[str, str]:
    """Return the facts of the request by name, while the flow runs also how its pages are reached; none if there is
    no request, or its backend isn't installed here."""
    body = _body(record)
    if body is None:
        return {}
    try:
        backend = registry.backend(record.spec.route.backend)
    except DispatcherError:
        return {}
    return {**backend.summary(body), **(backend.pages(body) if record.state is State.RUNNING else {})}


def rendered(record: Record, settings: Settings) -> str:
    """Return the whole request as its backend prints it, or as JSON; empty if there is none."""
    body = _body(record)
    if body is None:
        return ""
    try:
        return registry.backend(record.spec.route.backend)(settings).rendered(body).rstrip()
    except (
        DispatcherError,
        LookupError,
        TypeError,
    ):  # its backend isn't installed here, or no worker wrote the request
        return json.dumps(body, indent=2)


def _body(record: Record) -> Mapping[str, Any] | None:
    body = (record.request or {}).get("body")
    return body if isinstance(body, Mapping) else None
