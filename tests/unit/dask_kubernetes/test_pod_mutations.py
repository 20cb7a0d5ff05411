"""Whatever stands at a place of a worker's Pod: it is accepted and rendered, or refused at construction."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from backends.dask_kubernetes import manifest
from backends.dask_kubernetes.rendering import rendered
from dispatcher import DaskKubernetesEnvironment, InvalidInput
from dispatcher.errors import Permanent
from tests.unit.dask_kubernetes.pods import attempt_in, build, custom, settings
from tests.unit.kubernetes.test_job_mutations import MUTANTS, Path, mutated, places

#: A Pod with something at each place that is read or changed here.
FULL: dict[str, Any] = custom(
    metadata__namespace="default",
    spec__terminationGracePeriodSeconds=5,
    spec__serviceAccountName="etl",
    spec__automountServiceAccountToken=True,
    spec__imagePullSecrets=[{"name": "registry"}],
    spec__resources={"limits": {"cpu": 2}},
    spec__containers__0__command=["dask", "worker"],
    spec__containers__0__args=["--nthreads", "3", "--no-bokeh"],
)


def render(pod: dict[str, Any]) -> bool:
    """Return True if a Pod is accepted and rendered, False if it is refused; also where another release took it."""
    try:
        request = manifest.draft(attempt_in({**DaskKubernetesEnvironment().to_json(), "worker_spec": pod}), settings())
        rendered(request)
    except Permanent:
        pass
    try:
        environment = DaskKubernetesEnvironment(worker_spec=pod)
    except InvalidInput:
        return False
    try:
        request = build(environment)
    except Permanent:  # the Pod's namespace isn't the Job's
        return False
    assert rendered(request)
    json.dumps(request, allow_nan=False)
    return True


@pytest.mark.parametrize("path", list(places(FULL)), ids=lambda path: ".".join(map(str, path)))
def test_any_value_at_any_place_is_rendered_or_refused(path: Path) -> None:
    for value in MUTANTS:
        pod = mutated(FULL, path, value)
        assert pod is not None
        render(pod)


def test_several_changes_at_once_are_rendered_or_refused() -> None:
    random_choice = random.Random(15)
    paths, count = list(places(FULL)), 0
    for _ in range(1000):
        pod: dict[str, Any] = FULL
        for _ in range(random_choice.randint(1, 4)):
            pod = mutated(pod, random_choice.choice(paths), random_choice.choice(MUTANTS)) or pod
        count += render(pod)
    assert 20 < count < 1000
