"""KubernetesJobEnvironment: Prefect 0.10's arguments, the added ones, validation, and direct execution."""

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
from dispatcher.submission.request import RequestChecker
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


def callback() -> None: ...


@flow
def double(n: int) -> int:
    sys.stdout.write("doubling")
    return n * 2


def test_it_is_registered_and_public() -> None:
    from dispatcher import registry

    assert dispatcher.KubernetesJobEnvironment is registry.environment("KubernetesJobEnvironment")
    assert KubernetesJobEnvironment.backend == "kubernetes"


def test_prefects_arguments_come_first_and_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "job_spec.yaml"
    file.write_text(YAML)
    environment = KubernetesJobEnvironment(str(file), ["gpu"], callback, callback)
    assert environment.job_spec_file == str(file)
    assert (environment.labels, environment.on_start, environment.on_exit) == (("gpu",), callback, callback)
    with pytest.raises(TypeError):
        KubernetesJobEnvironment(str(file), ["gpu"], callback, callback, CUSTOM)  # type: ignore[call-arg]


def test_the_spec_is_part_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "job_spec.yaml"
    file.write_text(YAML)
    environment = KubernetesJobEnvironment(str(file))
    file.unlink()
    restored = base.from_json(json.loads(json.dumps(environment.to_json())))
    assert isinstance(restored, KubernetesJobEnvironment)
    assert restored.job_spec == environment.job_spec
    assert restored.job_spec is not None
    assert restored.job_spec["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "MY_ENV", "value": "foo"}]
    assert restored == environment
    assert restored.job_spec_file is None


@pytest.mark.parametrize(
    "arguments",
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
            "on_exit": callback,
        },
        {"job_spec": custom(spec__brandNew=1), "allow_unknown_fields": True},
    ],
    ids=["nothing", "spec", "everything", "unknown fields"],
)
def test_it_is_a_value_that_round_trips_through_json(arguments: dict[str, Any]) -> None:
    environment = KubernetesJobEnvironment(**arguments)
    data = environment.to_json()
    assert json.loads(json.dumps(data)) == data
    restored = base.from_json(data)
    assert restored == environment
    assert hash(restored) == hash(environment)
    assert restored.to_json() == data
    assert pickle.loads(pickle.dumps(environment)) == environment
    assert environment != KubernetesJobEnvironment(image="another")
    with pytest.raises(AttributeError, match="can't be changed"):
        environment.image = "x"


def test_properties_return_copies() -> None:
    environment = KubernetesJobEnvironment(job_spec=CUSTOM, env={"A": "1"})
    assert environment.job_spec is not None
    environment.job_spec["spec"]["parallelism"] = 3
    environment.env["A"] = "2"
    assert environment == KubernetesJobEnvironment(job_spec=CUSTOM, env={"A": "1"})


def test_a_field_unknown_to_the_reader_is_accepted_until_checked() -> None:
    data = {**KubernetesJobEnvironment(job_spec=CUSTOM).to_json(), "job_spec": custom(spec__brandNew=1)}
    restored = base.from_json(data)
    assert restored.to_json() == data
    with pytest.raises(InvalidInput, match=r"spec\.brandNew: unknown field"):
        restored.check()
    with pytest.raises(InvalidInput, match=r"spec\.parallelism"):
        base.from_json({**data, "job_spec": custom(spec__parallelism=2)})


@pytest.mark.parametrize(
    "changes", [{"spec__backoffLimit": 6}, {"metadata__labels__team": "é"}, {"metadata__uid": "1"}]
)
def test_a_job_that_an_earlier_release_took_is_accepted_until_checked(changes: dict[str, Any]) -> None:
    """Its run may be queued, or running; the worker and the API server decide."""
    data = {**KubernetesJobEnvironment(job_spec=CUSTOM).to_json(), "job_spec": custom(**changes)}
    restored = base.from_json(data)
    assert restored.to_json() == data
    with pytest.raises(InvalidInput, match="job_spec: "):
        restored.check()


def test_from_json_imports_little() -> None:
    code = (
        "import sys; from dispatcher.environments import base as environment; "
        "environment.from_json({'type': 'KubernetesJobEnvironment', 'image': 'x:1'}); "
        "print({'kubernetes', 'pydantic', 'yaml', 'urllib3'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "set()\n"


def test_its_repr_names_the_arguments() -> None:
    assert repr(KubernetesJobEnvironment(image="x:1")) == "KubernetesJobEnvironment(image='x:1')"


def with_variable(value: str) -> dict[str, Any]:
    return custom(spec__template__spec__containers__0__env=[{"name": "A", "value": value}])


@pytest.mark.parametrize(
    ("arguments", "message"),
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
        ({"env": {"A=B": "x"}}, "no variable can be called so, got 'A=B'"),
        ({"env": {"A": "a\0b"}}, "env: A must have no NUL character"),
        ({"env": {"A": "\ud800"}}, "env: A must be text that UTF-8 can encode"),
        ({"env": {"A": "x" * 131_070}}, "A is too large: with its name it has 131,073 bytes, and Linux takes 131,072"),
        ({"job_spec": with_variable("é" * 70_000)}, r"env\[0\].value: is too large"),
        ({"job_spec": with_variable("\0")}, r"env\[0\].value: must have no NUL"),
        ({"env": {"DISPATCHER__RUN__ID": "x"}}, "can't set the runner's own variables"),
        ({"secrets": {"A": "name"}}, "secrets: A must be 'secret/key', never a value"),
        ({"env": {"A": "1"}, "secrets": {"A": "s/k"}}, "secrets: names variables that env sets too"),
        ({"labels": "gpu"}, "labels: must be a list"),
    ],
)
def test_a_wrong_argument_is_an_error_where_it_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        KubernetesJobEnvironment(**arguments)


def test_a_value_may_be_as_large_as_linux_takes() -> None:
    """The kernel's bound is for ``A=…`` with the NUL that ends it."""
    value = "x" * (2**17 - 3)
    assert subprocess.run(["true"], env={"A": value}, check=True).returncode == 0
    assert KubernetesJobEnvironment(env={"A": value}).env == {"A": value}
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run(["true"], env={"A": value + "x"}, check=False)
    with pytest.raises(InvalidInput, match="env: A is too large"):
        KubernetesJobEnvironment(env={"A": value + "x"})


def test_the_variables_of_a_direct_execution_are_checked() -> None:
    with pytest.raises(InvalidInput, match=r"KubernetesJobEnvironment\.execute: env: A must have no NUL"):
        KubernetesJobEnvironment().execute(ModuleStorage(), "m:f", env={"A": "\0"})


def test_a_value_in_the_place_of_a_reference_is_not_repeated() -> None:
    with pytest.raises(InvalidInput) as raised:
        KubernetesJobEnvironment(secrets={"TOKEN": "hunter2-hunter2"})
    assert "hunter2" not in str(raised.value)


def test_a_storage_that_a_container_cannot_reach_is_a_type_error(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    location = storage.add_flow(double)
    environment = KubernetesJobEnvironment()
    for act in (lambda: environment.execute(storage, location), lambda: environment.setup(storage)):
        with pytest.raises(TypeError, match=r"can't reach a LocalStorage: use RedisStorage .*ModuleStorage .*Docker"):
            act()
    with pytest.raises(TypeError, match="can't reach a LocalStorage"):
        RequestChecker(dispatcher.Settings.load()).check(double, environment, storage, Options())
    environment.setup(RedisStorage())
    environment.setup(ModuleStorage())


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


def _set_up_container(folder: Path, monkeypatch: pytest.MonkeyPatch, **job: Any) -> None:
    """Set up the file and variable that a Job of ``execute`` has in its container."""
    file = folder / "variables.json"
    file.write_text(json.dumps({JOB: json.dumps({"storage": None, "parameters": {}, **job})}))
    monkeypatch.setenv("DISPATCHER__RUN__SECRETS_FILE", str(file))


def test_run_flow_runs_the_flow_of_its_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    name = storage.add_flow(double).partition("#")[0]
    calls: list[str] = []
    environment = KubernetesJobEnvironment(on_start=lambda: calls.append("start"), on_exit=lambda: calls.append("exit"))
    _set_up_container(tmp_path, monkeypatch, location=str(tmp_path / name), parameters={"n": 4})
    assert environment.run_flow() == 8
    assert calls == ["start", "exit"]
    _set_up_container(tmp_path, monkeypatch, location=str(tmp_path / "no.flow"))
    with pytest.raises(InvalidSettings, match="can't be read in this image: No such file"):
        environment.run_flow()


def test_the_program_of_a_direct_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dispatcher.runner import direct
    from dispatcher.support import private_files

    monkeypatch.setattr(private_files, "_alone", False)  # as the program of a container sets it; put back afterwards
    storage = LocalStorage(tmp_path)
    file = tmp_path / storage.add_flow(double).partition("#")[0]
    _set_up_container(
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
