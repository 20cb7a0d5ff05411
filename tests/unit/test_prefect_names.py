"""Names of Prefect 0.10 as people type them: they work as there, or the error names what takes their place."""

from __future__ import annotations

import copy
import pickle

import pytest

import dispatcher
from dispatcher import DaskExecutor, Dispatcher, InvalidInput, LocalEnvironment, RemoteEnvironment, flow
from dispatcher.environments.base import from_json


@flow
def answer() -> int:
    return 1


def test_labels_compare_equal_to_a_set() -> None:
    environment = LocalEnvironment(labels=["eu", "gpu"])

    assert environment.labels == {"gpu", "eu"}
    assert {"gpu", "eu"} == environment.labels
    assert environment.labels != {"gpu"}
    assert environment.labels == ("eu", "gpu")
    assert hash(environment.labels) == hash(("eu", "gpu"))
    for same in (pickle.loads(pickle.dumps(environment)), copy.deepcopy(environment), from_json(environment.to_json())):
        assert same == environment
        assert same.labels == {"eu", "gpu"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("prefect.engine.executors.DaskExecutor", "dispatcher.executors.DaskExecutor"),
        ("prefect.engine.executors.dask.LocalDaskExecutor", "dispatcher.executors.DaskExecutor"),
        ("prefect.engine.executors.LocalExecutor", "dispatcher.executors.LocalExecutor"),
        ("prefect.executors:DaskExecutor", "dispatcher.executors.DaskExecutor"),
    ],
)
def test_an_executor_of_prefects_is_an_error_that_names_ours(theirs: str, ours: str) -> None:
    with pytest.raises(InvalidInput, match=f"is Prefect's; write '{ours}'"):
        RemoteEnvironment(executor=theirs)


@pytest.mark.parametrize(
    ("name", "remedy"), [("serialize", "to_json"), ("logger", "context.logger"), ("dependencies", "extra")]
)
def test_an_attribute_of_prefects_environments_is_an_error_with_a_remedy(name: str, remedy: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}': .*{remedy}"):
        getattr(LocalEnvironment(), name)
    assert not hasattr(LocalEnvironment(), name)


def test_another_attribute_that_does_not_exist_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match=r"^'LocalEnvironment' object has no attribute 'lables'$"):
        getattr(LocalEnvironment(), "lables")  # noqa: B009 - a misspelt name


@pytest.mark.parametrize(("name", "remedy"), [("Docker", "DockerStorage"), ("RemoteDaskEnvironment", "address")])
def test_a_class_of_prefects_is_an_error_with_a_remedy(name: str, remedy: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}': use .*{remedy}"):
        getattr(dispatcher, name)


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"local_processes": True}, "cluster_kwargs={'processes'"),
        ({"debug": True}, "cluster_kwargs={'silence_logs'"),
        ({"security": None}, "client_kwargs={'security'"),
    ],
)
def test_an_argument_of_prefects_dask_executor_is_an_error_with_a_remedy(
    arguments: dict[str, object], remedy: str
) -> None:
    with pytest.raises(InvalidInput, match="DaskExecutor has no argument") as caught:
        DaskExecutor(**arguments)  # type: ignore[arg-type]
    assert remedy in str(caught.value)


def test_wrong_arguments_of_an_executor_are_refused_at_submit() -> None:
    environment = RemoteEnvironment("dispatcher.executors.DaskExecutor", {"local_processes": True})
    with Dispatcher("memory://") as client, pytest.raises(InvalidInput, match="no argument 'local_processes'"):
        client.submit(answer, environment=environment)
