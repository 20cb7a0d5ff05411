"""Commands and workers without a reachable Kubernetes cluster: one line with a remedy, and the right exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.cli.error_messages import NO_ANSWER, USAGE, Failure
from dispatcher.errors import InvalidSettings, Permanent, Transient
from dispatcher.runs.states import Cause
from tests.conftest import PYTHON
from tests.integration.workers import KEYS, Worker

pytestmark = pytest.mark.integration

COMMAND = str(Path(PYTHON).with_name("dispatcher"))
NOWHERE = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def _gc(url: str, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "DISPATCHER__URL": url,
        "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
        "KUBECONFIG": str(kubeconfig),
        "KUBERNETES_SERVICE_HOST": "",
    }
    return subprocess.run(
        [COMMAND, "gc", *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (None, USAGE, "there is no kubeconfig .*: set KUBECONFIG"),
        ("a: [", USAGE, "while parsing a flow node"),
        ("[]", USAGE, "Kubernetes: kubeconfig"),
        (NOWHERE, NO_ANSWER, r"127.0.0.1:1.* \(`dispatcher doctor --backend NAME` looks closer\)"),
    ],
    ids=["none", "no YAML", "no kubeconfig", "nobody there"],
)
def test_gc_of_a_cluster_that_can_not_be_asked(
    content: str | None, code: int, message: str, server_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)

    named = _gc(server_url, file, "--backend", "kubernetes")
    assert named.returncode == code, named.stderr
    (line,) = named.stderr.splitlines()
    assert re.search(message, line), line

    rest = _gc(server_url, file)
    assert rest.returncode == 0
    lines = rest.stderr.splitlines()
    for name in ("dask-kubernetes", "dask-operator", "kubernetes"):
        assert any(line.startswith(f"backend {name} was skipped: ") for line in lines), rest.stderr


def test_a_worker_says_so_as_it_is_ready(
    start_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "")
    environ = {"DISPATCHER__KUBERNETES__URL": "redis://somewhere:6379/0"}
    worker = start_worker(backends=["kubernetes"], environ=environ)
    (line,) = [line for line in worker.output.splitlines() if "is ready" in line]
    assert "is ready, but kubernetes can't be reached: " in line
    assert "set KUBECONFIG" in line


def test_exit_codes_of_what_a_backend_raises() -> None:
    assert Failure.of(Permanent("no", cause=Cause.CONFIG_ERROR)).exit_code == USAGE
    assert Failure.of(Transient("later")).exit_code == NO_ANSWER
    try:
        raise Transient("wrapped") from InvalidSettings("DISPATCHER__X: is wrong")
    except Transient as error:
        failure = Failure.of(error)
    assert (failure.exit_code, failure.message) == (USAGE, "DISPATCHER__X: is wrong")
