"""Random projects through real workers: a flow returns there what it returns in its program.

The local backend's pool process runs them one after the other, and so does a Dask cluster's process, so that each
project's modules have to be forgotten for the next one's. ``RANDOM_PROJECTS`` is their number; 12 by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, given, seed, settings

from tests.conftest import PYTHON
from tests.dask_cluster import nodes
from tests.integration.workers import KEYS, ROOT, Worker
from tests.unit.code.projects import write
from tests.unit.code.random_projects import Project, projects

COUNT = int(os.environ.get("RANDOM_PROJECTS", "12"))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120 + 30 * COUNT)]

#: Submits a project's flow to both, and prints all results once the project was moved away.
_PROGRAM = """
import json, sys
from importlib import import_module
from pathlib import Path
from dispatcher import Dispatcher, LocalEnvironment, RemoteEnvironment, flow, gather, task

module = import_module(sys.argv[1])
there = RemoteEnvironment("dispatcher.executors.DaskExecutor", {"address": sys.argv[2]})

@task
def value(depth):
    return module.value(depth)

@flow
def here_and_there(depth: int):
    return [module.value(depth), gather(value.submit(depth))]

expected = [module.value(3)] * 2
with Dispatcher() as client:
    runs = [client.submit(here_and_there, {"depth": 3}, environment=where) for where in (LocalEnvironment(), there)]
    print("submitted", flush=True)
    print(json.dumps([expected, *[run.result(timeout=60) for run in runs]]))
"""


def _compare(project: Project, directory: Path, environ: dict[str, str], address: str) -> bool:
    """Run a project everywhere; return False if its own program can't import it."""
    source = write(directory / "project", project.files)
    (source / "program.py").write_text(_PROGRAM)
    program = subprocess.Popen(
        [PYTHON, "program.py", project.start, address], cwd=source, env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        if program.stdout.readline() == "submitted\n":
            source.rename(directory / "moved")
        out, errors = program.communicate(timeout=120)
    finally:
        program.kill()
    if "partially initialized module" in errors or "cannot import name" in errors:
        return False
    assert program.returncode == 0, f"{errors}\n{project}"
    expected, *results = json.loads(out)
    assert results == [expected] * 2, project
    return True


def test_a_flow_returns_the_same_in_a_worker_and_on_dask(
    server_url: str, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    here = {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS), "PYTHONPATH": str(ROOT)}
    compared: list[bool] = []
    (tmp_path / "dask").mkdir()
    with nodes(tmp_path / "dask") as cluster:  # whose certificates the worker finds in its variables
        start_worker(backends=["local", "remote"], concurrency=1)
        environ = {**os.environ, **here}

        @seed(13)
        @settings(max_examples=COUNT, deadline=None, database=None, phases=[Phase.generate])
        @given(projects())
        def each(project: Project) -> None:
            directory = Path(tempfile.mkdtemp(dir=tmp_path))
            compared.append(_compare(project, directory, environ, cluster.address))

        each()
    assert len(compared) == COUNT
    assert any(compared)
