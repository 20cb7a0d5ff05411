"""The blocks of pages that need a cluster, executed on a real one."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cloud.k8s import DASK_PAGE, PAGE, kubectl
from tests.cloud.sandbox import Sandbox
from tests.conftest import PYTHON
from tests.integration.workers import KEYS, ROOT

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(600)]


@pytest.mark.parametrize("page", [PAGE, DASK_PAGE], ids=lambda page: page.stem)
def test_the_page_does_what_it_says(
    page: Path, sandbox: Sandbox, image: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if page == DASK_PAGE:
        image = request.getfixturevalue("worker_image")
    kubectl("delete", "namespace", "flows", "--ignore-not-found", "--wait=true")
    environment = {
        **os.environ,
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DISPATCHER__URL": sandbox.server.url,
        "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
        "DISPATCHER__KUBERNETES__IMAGE": image,
        "DISPATCHER__KUBERNETES__NAMESPACES": "flows",
    }
    try:
        result = subprocess.run(
            [PYTHON, "-m", "tests.docs.run_page", str(page), "--cluster"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        kubectl("delete", "namespace", "flows", "--ignore-not-found", "--wait=false")
    assert result.returncode == 0, f"{result.stdout[-4000:]}{result.stderr[-4000:]}"
    assert page == DASK_PAGE or "torn down" in result.stdout or "running" in result.stdout
