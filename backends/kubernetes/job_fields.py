"""The fields of a Job with their types, as the Kubernetes OpenAPI has them, and the check of types by that table.

``tools/kubernetes_fields.py`` generates the table (``fields.json``). Called by :mod:`backends.kubernetes.job_spec`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from dispatcher.support.escaping import LONGEST, shown

_SCALARS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a string (quote it)", lambda value: isinstance(value, str)),
    "int": ("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "float": ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    "quantity": (
        "an amount like 500m or 2Gi",
        lambda value: isinstance(value, str | int | float) and not isinstance(value, bool),
    ),
    "any": ("a JSON value", lambda value: True),
}


@cache
def table() -> Mapping[str, Any]:
    """Return the table: ``types`` maps model to field to type, ``root`` is the model of a Job, ``sdk`` its version."""
    text = resources.files("backends.kubernetes").joinpath("fields.json").read_text(encoding="utf-8")
    content: Mapping[str, Any] = json.loads(text)
    return content


def check_types(value: Any, kind: str, path: str, allow_unknown: bool) -> Iterator[str]:
    """Yield the paths where ``value`` doesn't match the type ``kind`` of the table. A field that is
    null counts as missing; an item of a list can't be."""
    if value is None:
        return
    if kind[0] in "[{":
        yield from _check_items(value, kind, path, allow_unknown)
    elif kind in _SCALARS:
        description, is_valid = _SCALARS[kind]
        if not is_valid(value):
            yield f"{path}: must be {description}, got {shown(value)}"
    elif not isinstance(value, Mapping):
        yield f"{path}: must be a mapping, got {shown(value)}"
    else:
        fields = table()["types"][kind]
        for name, inner in value.items():
            text = str(name) if len(str(name)) <= LONGEST else f"{str(name)[: LONGEST - 1]}…"
            below = f"{path}.{text}" if path else text
            if name in fields:
                yield from check_types(inner, fields[name], below, allow_unknown)
            elif not allow_unknown:
                yield f"{below}: {_unknown_field(name, fields)}"


def _check_items(value: Any, kind: str, path: str, allow_unknown: bool) -> Iterator[str]:
    inner = kind[1:-1]
    if kind[0] == "[":
        if not isinstance(value, list):
            yield f"{path}: must be a list, got {shown(value)}"
            return
        for index, item in enumerate(value):
            if item is None:
                yield f"{path}[{index}]: must not be null: fill the item in, or remove its dash"
            yield from check_types(item, inner, f"{path}[{index}]", allow_unknown)
        return
    if not isinstance(value, Mapping):
        yield f"{path}: must be a mapping, got {shown(value)}"
        return
    for name, item in value.items():
        if not isinstance(name, str):
            yield f"{path}: keys must be strings (quote them), got {shown(name)}"
        yield from check_types(item, inner, f"{path}.{name}", allow_unknown)


def _unknown_field(name: Any, fields: Mapping[str, str]) -> str:
    is_word = isinstance(name, str) and name.isalpha()  # else a directive of kubectl, a label, or no name at all
    similar = difflib.get_close_matches(name, fields, n=1) if is_word else []
    hint = f"; did you mean {similar[0]}?" if similar else ""
    sdk = table()["sdk"].split(".")[0]
    return f"unknown field (as of Kubernetes 1.{sdk}; allow_unknown_fields=True for a newer server){hint}"


def mappings(value: Any, kind: str, path: str = "") -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield all mappings in a value that have a model in the table: model, mapping and path.

    Args:
        value: a Job, or a part of one, of the right types.
        kind: its type.
        path: its place.
    """
    if value is None or kind in _SCALARS:
        return
    if kind[0] == "[":
        for index, item in enumerate(value):
            yield from mappings(item, kind[1:-1], f"{path}[{index}]")
    elif kind[0] == "{":
        for name, item in value.items():
            yield from mappings(item, kind[1:-1], f"{path}.{name}")
    else:
        yield kind, value, path
        fields = table()["types"][kind]
        for name, item in value.items():
            if name in fields:
                yield from mappings(item, fields[name], f"{path}.{name}" if path else name)
