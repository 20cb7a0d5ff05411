"""A spec filled into a template equals one that is serialized whole."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher import Dispatcher, LocalEnvironment
from dispatcher.environments.base import Environment
from dispatcher.runs.options import Options
from dispatcher.runs.routing import Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.value import Value
from dispatcher.submission.spec_template import NO_PARAMETERS, SpecTemplate
from tests.unit.sums import add

VALUES = (
    Value(codec="json", inline='{"a":"ü \\" {}"}', digest="d", size=3),
    Value(codec="pickle", inline="aGk=", digest="d", size=2),
    Value(codec="json", blob="b" * 64, digest="b" * 64, size=10**7),
)


def _spec(**changes: Any) -> Spec:
    fields: dict[str, Any] = {
        "run_id": "",
        "flow": 'etl "ü" {"codec":"json"}',
        "storage": {"type": "RedisStorage"},
        "location": "c" * 64,
        "parameters": NO_PARAMETERS,
        "environment": {"type": "LocalEnvironment", "labels": ["b", "a"]},
        "route": Route("local", ("b", "a")),
        "options": Options.of(tags=["t"], timeout=5, retries=2),
        "blobs": ("c" * 64,),
        "key_id": "k",
        "expires": 1.5,
    }
    return Spec(**fields | changes)


@pytest.mark.parametrize("value", VALUES, ids=["json", "pickle", "blob"])
def test_a_filled_template_is_the_whole_spec(value: Value) -> None:
    spec, raw = SpecTemplate(_spec()).fill("r1", value)

    blobs = ("c" * 64,) if value.blob is None else ("c" * 64, value.blob)
    assert spec == _spec(run_id="r1", parameters=value, blobs=blobs)
    assert raw == spec.to_bytes()
    assert Spec.from_bytes(raw) == spec


def test_each_submit_has_its_own_spec() -> None:
    here, labelled = LocalEnvironment(), LocalEnvironment(labels=["eu"])
    requests: list[tuple[Environment, dict[str, Any]]] = [
        (here, {}), (here, {}), (labelled, {}), (here, {"name": "b"}), (here, {"tags": ["t"]}), (here, {}),
    ]  # fmt: skip
    with Dispatcher("memory://") as client:
        for environment, options in requests:
            run = client.submit(add, {"a": 1}, environment=environment, **options)
            spec = Spec.from_bytes(client.records.runs.get(run.id)[0].spec_bytes)
            assert (spec.run_id, spec.labels) == (run.id, environment.labels)
            assert spec.options.name == options.get("name")
            assert spec.options.tags == tuple(options.get("tags", ("sums",)))
