"""Parsing and validation of a user's own Job. It runs where the Job is given, so that an error names the path in YAML.

The table of fields (``fields.json``) is generated from the Kubernetes OpenAPI by ``tools/kubernetes_fields.py``.
Nothing is changed here; :mod:`backends.kubernetes.manifest` sets the fields that every Job gets.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from backends.kubernetes import job_bounds
from dispatcher.errors import InvalidInput, MissingExtra
from dispatcher.support.escaping import LONGEST, escaped, shown
from dispatcher.support.json_documents import DuplicateKey

#: Reserved in a pod: the name of the volume with the runner's credentials, and its mount path.
VOLUME = "dispatcher-run"
MOUNT = "/run/dispatcher"

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

_ONE_POD = "an attempt is one pod, and ends with it"
_OWN_RETRIES = "use the run's retries=, which gives each attempt a Job of its own"

#: Fields that would break a run: path, predicate of refused values, and reason.
REFUSED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("metadata.generateName", bool, "the name derives from run and attempt, so that a repeated create finds its Job"),
    ("spec.selector", bool, "the Job controller sets it; your own may select the pods of other Jobs"),
    ("spec.manualSelector", bool, "the Job controller sets the selector"),
    ("spec.parallelism", lambda value: value != 1, f"must be 1: {_ONE_POD}"),
    ("spec.completions", lambda value: value != 1, f"must be 1: {_ONE_POD}"),
    ("spec.completionMode", lambda value: value == "Indexed", f"can't be Indexed: {_ONE_POD}"),
    ("spec.podFailurePolicy", bool, f"can't be used: {_OWN_RETRIES}"),
    ("spec.successPolicy", bool, f"can't be used: {_ONE_POD}"),
    ("spec.backoffLimitPerIndex", lambda value: True, f"can't be used: {_OWN_RETRIES}"),
    ("spec.managedBy", bool, "the cluster's own Job controller must run the Job, because its conditions are read"),
)


def load(path: str) -> dict[str, Any]:
    """Return the Job in a YAML (or JSON) file.

    Raises:
        InvalidInput: the file can't be read, or isn't one YAML document with a mapping.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(job_bounds.MAX_SIZE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"job_spec_file: can't read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > job_bounds.MAX_SIZE:
        raise InvalidInput(f"job_spec_file {path}: it is larger than {job_bounds.MAX_SIZE} characters")
    return parse(text, source=f"job_spec_file {path}")


def parse(text: str, *, source: str) -> dict[str, Any]:
    """Return the mapping in a YAML document.

    Args:
        text: the document.
        source: its file, for messages.

    Raises:
        InvalidInput: the text isn't a YAML document with a mapping.
        MissingExtra: PyYAML isn't installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra(
            f"{source}: reading YAML needs {error.name}: pip install 'flow-dispatcher[kubernetes]'"
        ) from None
    try:
        job_bounds.check_text(yaml.parse(text, Loader=yaml.SafeLoader), source=source)
        document = _load_document(yaml.SafeLoader(text))
    except InvalidInput:
        raise
    except DuplicateKey as error:
        raise InvalidInput(f"{source}: {error}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # also in values: a date in month 13
        raise InvalidInput(f"{source}: isn't one YAML document: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"{source}: must hold a Job (kind: Job), got {type(document).__name__}")
    return document


def _load_document(loader: Any) -> Any:
    """Return the value of the only document. A key that stands twice in one mapping is an error; merged keys (``<<``)
    don't count."""
    try:
        root = _root(loader)
        pending, visited = [root] if root is not None else [], set()
        while pending:
            node = pending.pop()
            if id(node) in visited:
                continue
            visited.add(id(node))
            if node.id == "mapping":
                pending.extend(part for pair in node.value for part in pair)
                _check_unique([key for key, _ in node.value if key.id == "scalar"])
            elif node.id == "sequence":
                pending.extend(node.value)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _root(loader: Any) -> Any:
    """Return the root of the only document that isn't empty, as ``kubectl`` reads a file; None if all are.

    Raises:
        ValueError: there are several.
    """
    roots = []
    while loader.check_node():
        node = loader.get_node()
        if node.id != "scalar" or node.value or node.style:
            roots.append(node)
    if len(roots) > 1:
        raise ValueError(f"another document begins in line {roots[1].start_mark.line + 1}")
    return roots[0] if roots else None


def _check_unique(keys: list[Any]) -> None:
    unique = set()
    for key in keys:
        if (key.tag, key.value) in unique:
            raise DuplicateKey(key.value, key.start_mark.line + 1)
        unique.add((key.tag, key.value))


def check(spec: Any, *, source: str, allow_unknown_fields: bool = False) -> None:
    """Validate a Job as its user wrote it.

    Args:
        spec: the Job.
        source: its argument or file, for messages.
        allow_unknown_fields: accept fields that the table lacks.

    Raises:
        InvalidInput: the Job can't run a flow; names each wrong path with the reason.
    """
    if not isinstance(spec, Mapping):
        raise InvalidInput(f"{source}: must be a mapping (a Job), got {type(spec).__name__}")
    job_bounds.check_value(spec, source=source)
    problems = list(_check_kind(spec)) or [
        *_check_type(spec, _table()["root"], "", allow_unknown_fields),
        *_check_refused(spec),
        *_check_reserved(spec),
    ]
    if problems:
        raise InvalidInput(f"{source}: " + escaped("; ".join(problems)))
    try:
        same = json.loads(json.dumps(spec, allow_nan=False)) == spec
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{source}: must hold JSON values only: {error}") from None
    if not same:
        raise InvalidInput(f"{source}: must hold JSON values only: keys are strings, sequences lists")


def _check_kind(spec: Mapping[str, Any]) -> Iterator[str]:
    for name, expected in (("apiVersion", "batch/v1"), ("kind", "Job")):
        if spec.get(name) != expected:
            yield f"{name}: must be {expected}, got {shown(spec.get(name))}"
    containers = at(spec, "spec.template.spec.containers")
    if not isinstance(containers, list) or not containers:
        yield "spec.template.spec.containers: needs a container; the first runs the flow"


def _check_refused(spec: Mapping[str, Any]) -> Iterator[str]:
    for path, is_refused, reason in REFUSED:
        value = at(spec, path)
        if value is not None and is_refused(value):
            yield f"{path}: {reason}"


def _check_reserved(spec: Mapping[str, Any]) -> Iterator[str]:
    pod = at(spec, "spec.template.spec")
    for index, volume in _mappings(at(pod, "volumes")):
        if volume.get("name") == VOLUME:
            yield f"spec.template.spec.volumes[{index}].name: {VOLUME} is the name of the runner's own volume"
    for index, mount in _mappings(at(pod["containers"][0], "volumeMounts")):
        if str(mount.get("mountPath", "")).rstrip("/") == MOUNT:
            yield f"spec.template.spec.containers[0].volumeMounts[{index}].mountPath: {MOUNT} is the runner's own"


def _mappings(value: Any) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the mappings in a list with their places. Anything else is a wrong type, which is reported elsewhere."""
    return [(i, item) for i, item in enumerate(value) if isinstance(item, Mapping)] if isinstance(value, list) else []


def at(spec: Any, path: str) -> Any:
    """Return the value at a path of mappings, or None."""
    for part in path.split("."):
        if not isinstance(spec, Mapping):
            return None
        spec = spec.get(part)
    return spec


@cache
def _table() -> Mapping[str, Any]:
    text = resources.files("backends.kubernetes").joinpath("fields.json").read_text(encoding="utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table


def _check_type(value: Any, kind: str, path: str, allow_unknown: bool) -> Iterator[str]:
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
        fields = _table()["types"][kind]
        for name, inner in value.items():
            text = str(name) if len(str(name)) <= LONGEST else f"{str(name)[: LONGEST - 1]}…"
            below = f"{path}.{text}" if path else text
            if name in fields:
                yield from _check_type(inner, fields[name], below, allow_unknown)
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
            yield from _check_type(item, inner, f"{path}[{index}]", allow_unknown)
        return
    if not isinstance(value, Mapping):
        yield f"{path}: must be a mapping, got {shown(value)}"
        return
    for name, item in value.items():
        if not isinstance(name, str):
            yield f"{path}: keys must be strings (quote them), got {shown(name)}"
        yield from _check_type(item, inner, f"{path}.{name}", allow_unknown)


def _unknown_field(name: Any, fields: Mapping[str, str]) -> str:
    similar = difflib.get_close_matches(str(name), fields, n=1)
    hint = f"; did you mean {similar[0]}?" if similar else ""
    sdk = _table()["sdk"].split(".")[0]
    return f"unknown field (as of Kubernetes 1.{sdk}; allow_unknown_fields=True for a newer server){hint}"


def check_part(value: Any, kind: str, *, source: str) -> None:
    """Validate a part of a Job.

    Args:
        value: the part.
        kind: its model's name in the table.
        source: its argument, for messages.

    Raises:
        InvalidInput: names each wrong path.
    """
    job_bounds.check_value(value, source=source)
    problems = list(_check_type(value, kind, source, False))
    if problems:
        raise InvalidInput(escaped("; ".join(problems)))
