"""A project's files and names on a Dask cluster: what its flow includes, and names that Dask or its libraries have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dask_cluster import Nodes, nodes
from tests.integration.dask_programs import SMALL, SUBMIT, VERSION, error_of, project, says, start
from tests.integration.workers import KEYS, Worker
from tests.unit.code.projects import write

pytestmark = pytest.mark.integration

#: A task that says which files beside its module came along.
CHOSEN = """
import os
from pathlib import Path
from dispatcher import flow, gather, task

@task
def files():
    here = Path(__file__).parent
    return sorted(path.relative_to(here).as_posix() for path in here.rglob("*.txt"))

@flow(include=["more/*.txt"], exclude=["large.txt"])
def main():
    return gather(files.submit())
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("dask")) as made:
        yield made


def test_a_program_sends_what_its_flow_includes(cluster: Nodes, tmp_path: Path) -> None:
    texts = dict.fromkeys(("small.txt", "large.txt", "more/one.txt", "other/two.txt"), "")
    write(project(tmp_path, CHOSEN), {"pyproject.toml": "", **texts})
    assert says(start(tmp_path, cluster)) == "['more/one.txt', 'small.txt']"


def test_a_name_of_a_library_that_dask_uses_is_refused(cluster: Nodes, tmp_path: Path) -> None:
    directory = project(tmp_path, f"import click\n{VERSION}")
    (directory / "click.py").write_text("X = 1\n")
    error = error_of(start(directory, cluster))
    assert "InvalidInput: " in error
    assert "module 'click' has the name of an installed one" in error


@pytest.mark.parametrize("name", ["dask", "distributed"])
def test_a_project_with_a_package_named_as_dask_is_refused(
    server_url: str, tmp_path: Path, cluster: Nodes, name: str
) -> None:
    """At the submit; by a program that runs its flow itself, when it starts."""
    here = {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}
    directory = project(tmp_path, f"import {name}\n{VERSION}")
    write(directory, {f"{name}/__init__.py": "X = 1\n"})
    message = (
        f"InvalidInput: DaskExecutor: the project has a module of its own, '{name}' ({tmp_path}/{name}/__init__.py), "
    )
    message += f"and needs Dask's package '{name}' as well: rename yours"
    assert error_of(start(directory, cluster)).endswith(message)
    (directory / "program.py").write_text(SUBMIT)
    submitted = start(directory, cluster, environ=here)
    out, errors = submitted.communicate(timeout=120)
    assert out == "", "it was submitted"
    assert errors.strip().splitlines()[-1].endswith(message)


def test_a_cluster_of_the_flow_imports_dask_from_what_is_installed(
    server_url: str, start_worker: Callable[..., Worker], tmp_path: Path, cluster: Nodes
) -> None:
    """Its processes inherit the import path of the flow's process."""
    start_worker(backends=["remote"], concurrency=1)
    here = {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)}
    own = "import sys\nsys.modules.pop('yaml', None)\nimport yaml\n"
    directory = project(tmp_path / "shop", f"{own}{VERSION}")
    write(directory, {"program.py": SUBMIT, "yaml.py": "X = 1\n"})
    _, errors = start(directory, cluster, environ=here, own={"cluster_kwargs": SMALL}).communicate(timeout=120)
    assert "module 'yaml' has the name of an installed one that is in use here" in errors
    assert "Nanny failed" not in errors
