"""Programs that compute a flow's tasks on a Dask cluster, each with a project of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conftest import PYTHON
from tests.dask_cluster import Nodes
from tests.unit.code.projects import write

#: A program that computes a flow's tasks on the cluster: address, most seconds to wait, the flow's parameters.
PROGRAM = """
import json, sys
from dispatcher import DaskExecutor
import etl

if __name__ == "__main__":
    executor = DaskExecutor(sys.argv[1], connect_timeout=float(sys.argv[2]))
    print(etl.main.run(json.loads(sys.argv[3]), executor))
"""

#: A project whose task says which version of it ran, and in which process.
VERSION = """
import os
from dispatcher import flow, gather, task
from part import VERSION

@task
def say(folder=None):
    import pathlib, time
    if folder:
        pathlib.Path(folder, f"begun {VERSION}").touch()
        while not pathlib.Path(folder, "go").exists():
            time.sleep(0.01)
    import later
    return VERSION, later.VERSION, os.getpid()

@flow
def main(folder: str | None = None):
    return gather(say.submit(folder))
"""

#: Submits the project's flow to a worker: as above, and options of a cluster of the flow's own.
SUBMIT = """
import json, sys
from dispatcher import Dispatcher, RemoteEnvironment
import etl

if __name__ == "__main__":
    options = json.loads(sys.argv[4]) or {"address": sys.argv[1], "connect_timeout": float(sys.argv[2])}
    where = RemoteEnvironment("dispatcher.executors.DaskExecutor", options)
    with Dispatcher() as client:
        run = client.submit(etl.main, json.loads(sys.argv[3]), environment=where)
        print(run.id, flush=True)
        print(run.result(timeout=100))
"""


SMALL = {"n_workers": 1, "threads_per_worker": 1}


def project(directory: Path, main: str, version: str = "1") -> Path:
    """Write a project with modules that bear the names of every other one."""
    part = f"VERSION = {version!r}\n"
    return write(directory, {"program.py": PROGRAM, "etl.py": main, "part.py": part, "later.py": part})


def start(
    directory: Path,
    cluster: Nodes,
    parameters: str = "{}",
    *,
    wait: float = 60,
    environ: Mapping[str, str] | None = None,
    own: Mapping[str, Any] | None = None,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PYTHON, "program.py", cluster.address, str(wait), parameters, json.dumps(own)],
        cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environ or {})},
    )  # fmt: skip


def says(program: subprocess.Popen[str]) -> str:
    out, errors = program.communicate(timeout=120)
    assert program.returncode == 0, errors
    return out.strip()


def error_of(program: subprocess.Popen[str]) -> str:
    _, errors = program.communicate(timeout=120)
    assert program.returncode == 1, errors
    return errors.strip().splitlines()[-1]
