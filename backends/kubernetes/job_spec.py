"""Parsing and validation of a user's own Job. It runs where the Job is given, so that an error names the path in YAML.

Types are checked by :mod:`backends.kubernetes.job_fields`, values by :mod:`backends.kubernetes.job_rules` and names by
:mod:`backends.kubernetes.job_references`. Nothing is changed here; :mod:`backends.kubernetes.manifest` sets the fields
that every Job gets.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.kubernetes import job_bounds
from backends.kubernetes.job_fields import check_types, mappings, table
from backends.kubernetes.job_references import reference_problems
from backends.kubernetes.job_rules import value_problems
from dispatcher.errors import InvalidInput, MissingExtra
from dispatcher.support.escaping import escaped, shown
from dispatcher.support.json_documents import DuplicateKey, read_document

#: Reserved in a pod: the name of the volume with the runner's credentials, and its mount path.
VOLUME = "dispatcher-run"
MOUNT = "/run/dispatcher"

#: Reserved too: the volumes with the key of a Dask cluster, and with the temporary files of its workers.
TLS_VOLUME = "dispatcher-tls"
SCRATCH_VOLUME = "dispatcher-scratch"
OWN_VOLUMES = (VOLUME, TLS_VOLUME, SCRATCH_VOLUME)

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
    ("spec.backoffLimit", lambda value: value != 0, f"must be 0: {_OWN_RETRIES}"),
    ("spec.backoffLimitPerIndex", lambda value: True, f"can't be used: {_OWN_RETRIES}"),
    ("spec.managedBy", bool, "the cluster's own Job controller must run the Job, because its conditions are read"),
)

#: Fields of metadata, and labels of pods, that a cluster sets.
EXPORTED = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
)
CONTROLLER_LABELS = (
    "controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name",
)  # fmt: skip


def load(path: str, *, argument: str = "job_spec_file", kind: str = "Job") -> dict[str, Any]:
    """Return the Job in a YAML (or JSON) file.

    Args:
        path: of the file.
        argument: the one that names the file, for messages.
        kind: what it is to hold, for messages too.

    Raises:
        InvalidInput: the file can't be read, or isn't one YAML document with a mapping.
    """
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
            name = "a directory" if stat.S_ISDIR(mode) else "a device or socket"
            raise InvalidInput(f"{argument}: must be a file with a {kind}, and {path} is {name}")
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(job_bounds.MAX_SIZE + 1)
            size = os.fstat(file.fileno()).st_size
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{argument}: can't read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > job_bounds.MAX_SIZE:
        length = f" (it has {size} bytes)" if size else ""
        raise InvalidInput(f"{argument} {path}: it is larger than {job_bounds.MAX_SIZE} characters{length}")
    return parse(text, source=f"{argument} {path}", kind=kind)


def parse(text: str, *, source: str, kind: str = "Job") -> dict[str, Any]:
    """Return the mapping in a YAML document.

    Args:
        text: the document.
        source: its file, for messages.
        kind: what it is to hold, for messages too.

    Raises:
        InvalidInput: the text isn't a YAML document with a mapping.
        MissingExtra: PyYAML isn't installed.
    """
    if (document := _parse_json(text, source)) is not None:
        return document
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
        raise InvalidInput(f"{source}: must hold a {kind} (kind: {kind}), got {type(document).__name__}")
    return document


def _parse_json(text: str, source: str) -> dict[str, Any] | None:
    """Return the mapping in a JSON document, which isn't YAML if tabs indent it; None if it isn't JSON."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        document = read_document(text)
    except DuplicateKey as error:
        raise InvalidInput(f"{source}: {error}") from None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


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
        *check_types(spec, table()["root"], "", allow_unknown_fields),
        *_check_refused(spec),
        *_check_exported(spec),
        *_check_reserved(spec),
    ]
    problems = problems or [
        *(() if allow_unknown_fields else check_values(spec, table()["root"], "")),
        *reference_problems(spec["spec"]["template"]["spec"]),
    ]
    if problems:
        raise InvalidInput(f"{source}: " + escaped("; ".join(problems)))
    check_json(spec, source=source)


def check_json(spec: Any, *, source: str) -> None:
    """Check that a value comes back from JSON as it was.

    Raises:
        InvalidInput: it doesn't.
    """
    try:
        same = json.loads(json.dumps(spec, allow_nan=False)) == spec
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{source}: must hold JSON values only: {error}") from None
    if not same:
        raise InvalidInput(f"{source}: must hold JSON values only: keys are strings, sequences lists")


def check_stored(spec: Any, *, source: str) -> None:
    """Validate a Job that its submitter has checked, perhaps with another release, as far as it is read here.

    Raises:
        InvalidInput: the Job can't run a flow; names each wrong path with the reason.
    """
    if not isinstance(spec, Mapping):
        raise InvalidInput(f"{source}: must be a mapping (a Job), got {type(spec).__name__}")
    job_bounds.check_value(spec, source=source)
    if problems := structure_problems(spec):
        raise InvalidInput(f"{source}: " + escaped("; ".join(problems)))


def structure_problems(spec: Mapping[str, Any]) -> list[str]:
    """Return why a worker can't build on a Job, each with its path.

    A submitter has checked it before, perhaps with another release. A field that this one doesn't know is left to the
    API server, and so is ``backoffLimit``, which is set in every Job.
    """
    return list(_check_kind(spec)) or [
        *check_types(spec, table()["root"], "", True),
        *(problem for problem in _check_refused(spec) if not problem.startswith("spec.backoffLimit:")),
        *_check_reserved(spec),
    ]


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
    yield from reserved_problems(at(spec, "spec.template.spec"), (MOUNT,))


def reserved_problems(pod: Mapping[str, Any], mounts: Sequence[str]) -> Iterator[str]:
    """Yield names of volumes, and mount paths of the first container, that are kept for our own volumes.

    Args:
        pod: the pod's spec in a Job.
        mounts: the mount paths of our own volumes.
    """
    place = "spec.template.spec"
    for index, volume in _mappings(at(pod, "volumes")):
        if volume.get("name") in OWN_VOLUMES:
            yield f"{place}.volumes[{index}].name: {volume['name']} is the name of a volume that is added to pods"
    for index, mount in _mappings(at(pod["containers"][0], "volumeMounts")):
        if (path := posixpath.normpath(str(mount.get("mountPath", "")))) in mounts:
            yield f"{place}.containers[0].volumeMounts[{index}].mountPath: {path} is for a volume that is added to pods"


def _check_exported(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a cluster adds to a Job, as ``kubectl get -o yaml`` exports it. What is empty isn't exported."""
    exported = [path for path in (*(f"metadata.{field}" for field in EXPORTED), "status") if at(spec, path)]
    exported += exported_fields(at(spec, "spec.template.metadata"))
    if exported:
        yield f"{', '.join(exported)}: set by the cluster from which this Job was exported; remove them"


def exported_fields(metadata: Any) -> list[str]:
    """Return the paths of what a cluster adds to a pod's metadata, as in a Job."""
    place = "spec.template.metadata"
    exported = [f"{place}.{field}" for field in EXPORTED if at(metadata, field)]
    labels = at(metadata, "labels")
    if isinstance(labels, Mapping):
        exported += [f"{place}.labels.{name}" for name in CONTROLLER_LABELS if name in labels]
    return exported


def check_values(value: Any, kind: str, source: str) -> Iterator[str]:
    """Yield what is wrong with the values in a part of a Job, by :mod:`backends.kubernetes.job_rules`."""
    for model, part, path in mappings(value, kind, source):
        yield from value_problems(model, part, path)


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
    problems = list(check_types(value, kind, source, False)) or list(check_values(value, kind, source))
    if problems:
        raise InvalidInput(escaped("; ".join(problems)))
