"""A user's own Job: read, and checked where it is given, so that a mistake is an error with its path in the YAML.

The table of fields (``fields.json``) is generated from the Kubernetes OpenAPI by ``tools/kubernetes_fields.py``.
Nothing is changed here; what is ours in a Job is set by :mod:`backends.kubernetes.manifest`.
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

#: Names that are ours in a pod: the volume with the runner's credentials, and where it is mounted.
VOLUME = "dispatcher-run"
MOUNT = "/run/dispatcher"

_SCALARS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a string (quote it)", lambda value: isinstance(value, str)),
    "int": ("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "float": ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool)),
    "quantity": ("an amount like 500m or 2Gi", lambda v: isinstance(v, str | int | float) and not isinstance(v, bool)),
    "any": ("a JSON value", lambda value: True),
}

_ONE_RUN = "a run is one pod, whose end is the run's"
_OURS = "retries are the run's own (retries=), each in a Job of its own"

#: Fields that would break a run: path, whether a value is refused, and why.
REFUSED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("metadata.generateName", bool, "the name is made from run and attempt, so that a repeated create finds its Job"),
    ("spec.selector", bool, "the Job controller makes it; one of your own may select the pods of other Jobs"),
    ("spec.manualSelector", bool, "the Job controller makes the selector"),
    ("spec.parallelism", lambda value: value != 1, f"must be 1: {_ONE_RUN}"),
    ("spec.completions", lambda value: value != 1, f"must be 1: {_ONE_RUN}"),
    ("spec.completionMode", lambda value: value == "Indexed", f"can't be Indexed: {_ONE_RUN}"),
    ("spec.podFailurePolicy", bool, f"can't be used: {_OURS}"),
    ("spec.successPolicy", bool, f"can't be used: {_ONE_RUN}"),
    ("spec.backoffLimitPerIndex", lambda value: True, f"can't be used: {_OURS}"),
    ("spec.managedBy", bool, "the Job must be run by the cluster's own Job controller, whose conditions are read"),
)


def load(path: str) -> dict[str, Any]:
    """The Job in a YAML (or JSON) file.

    Raises:
        InvalidInput: it can't be read, or isn't one YAML document that holds a mapping.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(job_bounds.LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"job_spec_file: can't read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > job_bounds.LARGEST:
        raise InvalidInput(f"job_spec_file {path}: it is larger than {job_bounds.LARGEST} characters")
    return parse(text, what=f"job_spec_file {path}")


def parse(text: str, *, what: str) -> dict[str, Any]:
    """The mapping in a YAML document.

    Raises:
        InvalidInput: it isn't one.
        MissingExtra: PyYAML isn't installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra(
            f"{what}: reading YAML needs {error.name}: pip install 'flow-dispatcher[kubernetes]'"
        ) from None
    try:
        job_bounds.check_text(yaml.parse(text, Loader=yaml.SafeLoader), what=what)
        found = _composed(yaml.SafeLoader(text))
    except InvalidInput:
        raise
    except DuplicateKey as error:
        raise InvalidInput(f"{what}: {error}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # values too: a date in month 13
        raise InvalidInput(f"{what}: isn't one YAML document: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{what}: must hold a Job (kind: Job), got {type(found).__name__}")
    return found


def _composed(loader: Any) -> Any:
    """The value of a document, none of whose mappings has a key twice; merged keys (``<<``) stand beside its own."""
    try:
        root = loader.get_single_node()
        rest, seen = [root] if root is not None else [], set()
        while rest:
            node = rest.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.id == "mapping":
                rest.extend(part for pair in node.value for part in pair)
                _refuse_twice([key for key, _ in node.value if key.id == "scalar"])
            elif node.id == "sequence":
                rest.extend(node.value)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_twice(keys: list[Any]) -> None:
    seen = set()
    for key in keys:
        if (key.tag, key.value) in seen:
            raise DuplicateKey(key.value, key.start_mark.line + 1)
        seen.add((key.tag, key.value))


def check(spec: Any, *, what: str, allow_unknown_fields: bool = False) -> None:
    """Check a Job as its user wrote it.

    Raises:
        InvalidInput: names each wrong path with its reason.
    """
    if not isinstance(spec, Mapping):
        raise InvalidInput(f"{what}: must be a mapping (a Job), got {type(spec).__name__}")
    job_bounds.check_value(spec, what=what)
    problems = list(_not_a_job(spec)) or [*_misfits(spec, allow_unknown_fields), *_refusals(spec), *_taken(spec)]
    if problems:
        raise InvalidInput(f"{what}: " + escaped("; ".join(problems)))
    try:
        same = json.loads(json.dumps(spec, allow_nan=False)) == spec
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{what}: must hold JSON values only: {error}") from None
    if not same:
        raise InvalidInput(f"{what}: must hold JSON values only: keys are strings, sequences lists")


def _not_a_job(spec: Mapping[str, Any]) -> Iterator[str]:
    for name, expected in (("apiVersion", "batch/v1"), ("kind", "Job")):
        if spec.get(name) != expected:
            yield f"{name}: must be {expected}, got {shown(spec.get(name))}"
    containers = at(spec, "spec.template.spec.containers")
    if not isinstance(containers, list) or not containers:
        yield "spec.template.spec.containers: needs a container; the first one runs the flow"


def _refusals(spec: Mapping[str, Any]) -> Iterator[str]:
    for path, refused, reason in REFUSED:
        value = at(spec, path)
        if value is not None and refused(value):
            yield f"{path}: {reason}"


def _taken(spec: Mapping[str, Any]) -> Iterator[str]:
    pod = at(spec, "spec.template.spec") or {}
    for index, volume in enumerate(pod.get("volumes") or ()):
        if isinstance(volume, Mapping) and volume.get("name") == VOLUME:
            yield f"spec.template.spec.volumes[{index}].name: {VOLUME} is the name of the runner's own volume"
    first = pod["containers"][0]
    for index, mount in enumerate((first.get("volumeMounts") or ()) if isinstance(first, Mapping) else ()):
        if isinstance(mount, Mapping) and str(mount.get("mountPath", "")).rstrip("/") == MOUNT:
            yield f"spec.template.spec.containers[0].volumeMounts[{index}].mountPath: {MOUNT} is the runner's own"


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
    found: Mapping[str, Any] = json.loads(text)
    return found


def _misfits(spec: Mapping[str, Any], allow_unknown: bool) -> Iterator[str]:
    table = _table()
    yield from _fit(spec, table["root"], "", allow_unknown)


def _fit(value: Any, kind: str, path: str, allow_unknown: bool) -> Iterator[str]:
    """Yield the places where ``value`` doesn't fit the type of that name; null stands for a field left out."""
    if value is None:
        return
    if kind[0] in "[{":
        yield from _fit_many(value, kind, path, allow_unknown)
    elif kind in _SCALARS:
        words, fits = _SCALARS[kind]
        if not fits(value):
            yield f"{path}: must be {words}, got {shown(value)}"
    elif not isinstance(value, Mapping):
        yield f"{path}: must be a mapping, got {shown(value)}"
    else:
        fields = _table()["types"][kind]
        for name, inner in value.items():
            word = str(name) if len(str(name)) <= LONGEST else f"{str(name)[: LONGEST - 1]}…"
            below = f"{path}.{word}" if path else word
            if name in fields:
                yield from _fit(inner, fields[name], below, allow_unknown)
            elif not allow_unknown:
                yield f"{below}: {_unknown(name, fields)}"


def _fit_many(value: Any, kind: str, path: str, allow_unknown: bool) -> Iterator[str]:
    inner = kind[1:-1]
    if kind[0] == "[":
        if not isinstance(value, list):
            yield f"{path}: must be a list, got {shown(value)}"
            return
        for index, item in enumerate(value):
            yield from _fit(item, inner, f"{path}[{index}]", allow_unknown)
        return
    if not isinstance(value, Mapping):
        yield f"{path}: must be a mapping, got {shown(value)}"
        return
    for name, item in value.items():
        if not isinstance(name, str):
            yield f"{path}: keys must be strings (quote them), got {shown(name)}"
        yield from _fit(item, inner, f"{path}.{name}", allow_unknown)


def _unknown(name: Any, fields: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(str(name), fields, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    sdk = _table()["sdk"].split(".")[0]
    return f"unknown field (as of Kubernetes 1.{sdk}; allow_unknown_fields=True for a newer server){meant}"


def check_part(value: Any, kind: str, *, what: str) -> None:
    """Check a part of a Job by its model's name in the table.

    Raises:
        InvalidInput: names each wrong path.
    """
    job_bounds.check_value(value, what=what)
    problems = list(_fit(value, kind, what, False))
    if problems:
        raise InvalidInput(escaped("; ".join(problems)))
