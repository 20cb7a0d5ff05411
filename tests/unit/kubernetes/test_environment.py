"""KubernetesJobEnvironment: the seed's API, what is added to it, and what is refused where it is made (issue 5)."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dispatcher
from dispatcher import InvalidInput, KubernetesJobEnvironment, LocalStorage, ModuleStorage, RedisStorage, flow
from dispatcher.environments import base
from dispatcher.errors import InvalidSettings
from dispatcher.runner.direct import JOB
from dispatcher.runs.options import Options
from dispatcher.submission.request import Requests
from tests.unit.kubernetes.jobs import CUSTOM, custom

YAML = """
apiVersion: batch/v1
kind: Job
metadata: {name: my-prefect-job}
spec:
  template:
    spec:
      containers:
        - name: flow-container
          image: ""
          env: [{name: MY_ENV, value: foo}]
"""


def started() -> None: ...


@flow
def double(n: int) -> int:
    sys.stdout.write("doubling")
    return n * 2


def test_it_is_registered_and_public() -> None:
    from dispatcher import registry

    assert dispatcher.KubernetesJobEnvironment is registry.environment("KubernetesJobEnvironment")
    assert KubernetesJobEnvironment.backend == "kubernetes"


def test_the_seeds_arguments_come_first_and_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "job_spec.yaml"
    file.write_text(YAML)
    one = KubernetesJobEnvironment(str(file), ["gpu"], started, started)
    assert one.job_spec_file == str(file)
    assert (one.labels, one.on_start, one.on_exit) == (("gpu",), started, started)
    with pytest.raises(TypeError):
        KubernetesJobEnvironment(str(file), ["gpu"], started, started, CUSTOM)  # type: ignore[call-arg]


def test_the_spec_travels_inside(tmp_path: Path) -> None:
    file = tmp_path / "job_spec.yaml"
    file.write_text(YAML)
    one = KubernetesJobEnvironment(str(file))
    file.unlink()
    there = base.from_json(json.loads(json.dumps(one.to_json())))
    assert isinstance(there, KubernetesJobEnvironment)
    assert there.job_spec == one.job_spec
    assert there.job_spec is not None
    assert there.job_spec["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "MY_ENV", "value": "foo"}]
    assert there == one
    assert there.job_spec_file is None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"job_spec": CUSTOM},
        {
            "image": "registry:5000/flows:1",
            "image_pull_secrets": ["registry"],
            "image_pull_policy": "Always",
            "namespace": "team",
            "resources": {"limits": {"memory": "2Gi", "nvidia.com/gpu": 1}},
            "env": {"A": "1"},
            "secrets": {"B": "credentials/token"},
            "labels": ["eu"],
            "on_exit": started,
        },
        {"job_spec": custom(spec__brandNew=1), "allow_unknown_fields": True},
    ],
    ids=["nothing", "spec", "everything", "unknown fields"],
)
def test_it_is_a_value_that_round_trips_through_json(given: dict[str, Any]) -> None:
    one = KubernetesJobEnvironment(**given)
    data = one.to_json()
    assert json.loads(json.dumps(data)) == data
    there = base.from_json(data)
    assert there == one
    assert hash(there) == hash(one)
    assert there.to_json() == data
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != KubernetesJobEnvironment(image="another")
    with pytest.raises(AttributeError, match="can't be changed"):
        one.image = "x"


def test_what_it_gives_out_is_a_copy() -> None:
    one = KubernetesJobEnvironment(job_spec=CUSTOM, env={"A": "1"})
    assert one.job_spec is not None
    one.job_spec["spec"]["parallelism"] = 3
    one.env["A"] = "2"
    assert one == KubernetesJobEnvironment(job_spec=CUSTOM, env={"A": "1"})


def test_a_field_that_only_the_submitter_knows_is_no_error_where_it_is_read_again() -> None:
    data = {**KubernetesJobEnvironment(job_spec=CUSTOM).to_json(), "job_spec": custom(spec__brandNew=1)}
    there = base.from_json(data)
    assert there.to_json() == data
    with pytest.raises(InvalidInput, match=r"spec\.brandNew: unknown field"):
        there.check()
    with pytest.raises(InvalidInput, match=r"spec\.parallelism"):
        base.from_json({**data, "job_spec": custom(spec__parallelism=2)})


def test_the_runner_builds_it_again_without_loading_much() -> None:
    code = (
        "import sys; from dispatcher.environments import base as environment; "
        "environment.from_json({'type': 'KubernetesJobEnvironment', 'image': 'x:1'}); "
        "print({'kubernetes', 'pydantic', 'yaml', 'urllib3'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


def test_its_repr_says_what_was_given() -> None:
    assert repr(KubernetesJobEnvironment(image="x:1")) == "KubernetesJobEnvironment(image='x:1')"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"job_spec": CUSTOM, "job_spec_file": "job.yaml"}, "job_spec: can't be given beside job_spec_file"),
        ({"job_spec_file": "no/such.yaml"}, "can't read .*no/such.yaml: No such file"),
        ({"job_spec_file": 3}, "job_spec_file: must be the path"),
        ({"image": ""}, "image: must be an image's name, got ''"),
        ({"image": "a b"}, "image: must be"),
        ({"image_pull_secrets": "one"}, "image_pull_secrets: must be a list of names of Secrets, got 'one'"),
        ({"image_pull_secrets": ["Not_A_Name"]}, "image_pull_secrets: must be a list"),
        ({"image_pull_policy": "never"}, "image_pull_policy: must be one of Always, IfNotPresent, Never, got 'never'"),
        ({"namespace": "a.b"}, "namespace: must be the name of a namespace, got 'a.b'"),
        ({"resources": {"limit": {"cpu": 1}}}, r"resources\.limit: unknown field .*; did you mean limits\?"),
        ({"resources": {"limits": {"cpu": [1]}}}, r"resources\.limits\.cpu: must be an amount"),
        ({"env": {"A": 1}}, "env: must map variables to strings; A is, got 1"),
        ({"env": {"1A": "x"}}, "no variable can be called so, got '1A'"),
        ({"env": {"DISPATCHER__RUN__ID": "x"}}, "can't set the runner's own variables"),
        ({"secrets": {"A": "name"}}, "secrets: A must be 'secret/key', never a value"),
        ({"env": {"A": "1"}, "secrets": {"A": "s/k"}}, "secrets: names variables that env sets too"),
        ({"labels": "gpu"}, "labels: must be a list"),
    ],
)
def test_a_wrong_argument_is_an_error_where_it_is_made(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        KubernetesJobEnvironment(**given)


def test_a_value_given_for_a_reference_is_not_repeated() -> None:
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(secrets={"TOKEN": "hunter2-hunter2"})
    assert "hunter2" not in str(raised.value)


def test_a_storage_that_a_container_cannot_reach_is_a_type_error(tmp_path: Path) -> None:
    here = LocalStorage(tmp_path)
    location = here.add_flow(double)
    one = KubernetesJobEnvironment()
    for act in (lambda: one.execute(here, location), lambda: one.setup(here)):
        with pytest.raises(TypeError, match=r"can't reach a LocalStorage: use RedisStorage .*ModuleStorage .*Docker"):
            act()
    with pytest.raises(TypeError, match="can't reach a LocalStorage"):
        Requests(dispatcher.Settings.load()).checked(double, one, here, Options())
    one.setup(RedisStorage())
    one.setup(ModuleStorage())


class Imaged(ModuleStorage):
    """A storage that brings its image."""

    image = "registry/flows@sha256:1"


def test_an_image_of_the_storage_and_of_the_environment_are_an_error() -> None:
    KubernetesJobEnvironment().setup(Imaged())
    with pytest.raises(InvalidInput, match=r"brings its own \(registry/flows@sha256:1\)"):
        KubernetesJobEnvironment(image="another:1").execute(Imaged(), "somewhere")


def test_execute_takes_parameters_and_env_alone() -> None:
    with pytest.raises(TypeError, match=r"KubernetesJobEnvironment.execute\(\) got unknown parms"):
        KubernetesJobEnvironment().execute(ModuleStorage(), "m:f", parms={})


def _direct(folder: Path, monkeypatch: pytest.MonkeyPatch, **job: Any) -> None:
    """What a Job of ``execute`` finds in its container."""
    file = folder / "variables.json"
    file.write_text(json.dumps({JOB: json.dumps({"storage": None, "parameters": {}, **job})}))
    monkeypatch.setenv("DISPATCHER__RUN__SECRETS_FILE", str(file))


def test_run_flow_runs_the_flow_of_its_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    name = storage.add_flow(double).partition("#")[0]
    said: list[str] = []
    one = KubernetesJobEnvironment(on_start=lambda: said.append("start"), on_exit=lambda: said.append("exit"))
    _direct(tmp_path, monkeypatch, location=str(tmp_path / name), parameters={"n": 4})
    assert one.run_flow() == 8
    assert said == ["start", "exit"]
    _direct(tmp_path, monkeypatch, location=str(tmp_path / "no.flow"))
    with pytest.raises(InvalidSettings, match="can't be read in this image: No such file"):
        one.run_flow()


def test_the_program_of_a_direct_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dispatcher.runner import direct

    storage = LocalStorage(tmp_path)
    file = tmp_path / storage.add_flow(double).partition("#")[0]
    _direct(
        tmp_path,
        monkeypatch,
        location=str(file),
        parameters={"n": 2},
        environment=KubernetesJobEnvironment().to_json(),
    )
    assert direct.main() == 0
    assert "doubling" in capsys.readouterr().out
    monkeypatch.delenv("DISPATCHER__RUN__SECRETS_FILE")
    assert direct.main() == 2
    assert "not set; only a Job that execute() made can run this" in capsys.readouterr().err
    with pytest.raises(InvalidSettings):
        KubernetesJobEnvironment().run_flow()
