"""Whatever stands at a place of a Job: it is accepted and rendered, or refused at construction by that place."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from backends.kubernetes.backend import KubernetesBackend
from dispatcher import InvalidInput, KubernetesJobEnvironment, Settings
from dispatcher.errors import Permanent
from tests.unit.kubernetes.jobs import CUSTOM, attempt

#: A Job with something at each place that is read or changed here.
FULL: dict[str, Any] = copy.deepcopy(CUSTOM)
FULL["spec"]["template"]["metadata"]["annotations"] = {"note": "kept"}
FULL["spec"]["template"]["spec"].update({
    "terminationGracePeriodSeconds": 5,
    "serviceAccount": "etl",
    "imagePullSecrets": [{"name": "registry"}],
})  # fmt: skip
FULL["spec"]["template"]["spec"]["initContainers"][0]["env"] = [{"name": "A", "value": "x"}]
FULL["spec"]["template"]["spec"]["containers"][0]["env"].append(
    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
)

MUTANTS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, "", "text", "\ud800", [], [None], [True], [-1], ["text"], [[]], [{}], {},
    {"a": None}, {"a": True}, {"name": None}, [{"name": None}], [{"name": -1}], [{"name": "a"}, None],
)  # fmt: skip

Path = tuple[Any, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths of all parts of a value."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(job: dict[str, Any], path: Path, value: Any) -> dict[str, Any] | None:
    """Return the Job with another value at a path; None if an earlier change removed the place."""
    job = copy.deepcopy(job)
    parent: Any = job
    try:
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]]
        parent[path[-1]] = copy.deepcopy(value)
    except (KeyError, IndexError, TypeError):
        return None
    return job


@pytest.fixture(scope="module")
def backend() -> Iterator[KubernetesBackend]:
    backend = KubernetesBackend(Settings.load(kubernetes={"namespaces": ["default", "team"]}))
    yield backend
    backend.close()


def render(backend: KubernetesBackend, job: dict[str, Any]) -> bool:
    """Return True if a Job is accepted and rendered, False if it is refused."""
    try:
        environment = KubernetesJobEnvironment(image="flows:1", job_spec=job)
    except InvalidInput:
        return False
    try:
        request = backend.request(attempt(environment))
    except Permanent:  # the Job's namespace or service account isn't this worker's
        return False
    assert backend.rendered(request)
    json.dumps(request, allow_nan=False)
    assert None not in [container["name"] for container in request["job"]["spec"]["template"]["spec"]["containers"][:1]]
    return True


@pytest.mark.parametrize("path", list(places(FULL)), ids=lambda path: ".".join(map(str, path)))
def test_any_value_at_any_place_is_rendered_or_refused(path: Path, backend: KubernetesBackend) -> None:
    for value in MUTANTS:
        job = mutated(FULL, path, value)
        assert job is not None
        render(backend, job)


def test_several_changes_at_once_are_rendered_or_refused(backend: KubernetesBackend) -> None:
    random_choice = random.Random(20)
    paths, rendered = list(places(FULL)), 0
    for _ in range(1500):
        job: dict[str, Any] = FULL
        for _ in range(random_choice.randint(1, 4)):
            job = mutated(job, random_choice.choice(paths), random_choice.choice(MUTANTS)) or job
        rendered += render(backend, job)
    assert 20 < rendered < 1500


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("spec", "template", "spec", "initContainers"),
            [None],
            "spec.template.spec.initContainers[0]: must not be null",
        ),
        (("spec", "template", "spec", "containers"), [None], "spec.template.spec.containers[0]: must not be null"),
        (
            ("spec", "template", "spec", "containers"),
            [{"name": "flow"}, None],
            "spec.template.spec.containers[1]: must not be null",
        ),
        (
            ("spec", "template", "spec", "containers", 0, "env"),
            [None],
            "spec.template.spec.containers[0].env[0]: must not be null",
        ),
        (("spec", "template", "spec", "volumes"), True, "spec.template.spec.volumes: must be a list, got True"),
        (
            ("spec", "template", "spec", "containers", 0, "volumeMounts"),
            -1,
            "spec.template.spec.containers[0].volumeMounts: must be a list, got -1",
        ),
    ],
)
def test_the_error_names_the_place(path: Path, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(job_spec=mutated(FULL, path, value))
    assert message in str(raised.value)
