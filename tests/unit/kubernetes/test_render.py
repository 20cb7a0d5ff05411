"""``dispatcher render`` prints, offline, exactly what a worker would send, with its digest (issue 5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.kubernetes import manifest
from dispatcher import KubernetesJobEnvironment, Settings
from dispatcher.records.memory import open_memory
from dispatcher.serialization import KeyRing
from tests.unit.command import FLOWS, call
from tests.unit.kubernetes.jobs import CUSTOM
from tests.unit.making import make_record, trusting
from workers.backend_cache import Backends
from workers.execution.provisioning import Provisioner

KEYS = {"k1": "0123456789abcdef"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with flows and environments, in a process without server or cluster."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPATCHER__URL", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPATCHER__EMBEDDED", "false")
    (tmp_path / "flows.py").write_text(FLOWS)
    _environment(tmp_path, KubernetesJobEnvironment(image="flows:1"))
    return tmp_path


def _environment(folder: Path, environment: KubernetesJobEnvironment) -> None:
    (folder / "env.json").write_text(json.dumps(environment.to_json()))


def test_it_prints_the_job_with_its_digest(here: Path) -> None:
    done = call("render", "flows.py:greet", "--environment", "env.json", "-p", "name=x")
    assert done.exit_code == 0, done.output
    job = yaml.safe_load(done.stdout)
    assert (job["kind"], job["metadata"]["namespace"]) == ("Job", "default")
    digest = job["metadata"]["annotations"]["flow-dispatcher/digest"]
    assert manifest.digest(job) == digest
    assert done.stdout.startswith(f"# namespace default; digest {digest}\n")
    again = call("render", "flows.py:greet", "--environment", "env.json").stdout
    assert yaml.safe_load(again)["metadata"]["name"] != job["metadata"]["name"]  # another run


def test_it_is_exactly_what_a_worker_sends_for_that_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps(KEYS))
    monkeypatch.setenv("DISPATCHER__KUBERNETES__NAMESPACES", '["default", "team"]')
    environment = KubernetesJobEnvironment(job_spec=CUSTOM, env={"A": "ü"})
    _environment(here, environment)
    sent = _sent(environment, timeout=60, start_within=30)
    options = ["--timeout", "60", "--start-within", "30", "--name", "étl", "--run-id", "run1", "--attempt", "1"]
    done = call("render", "flows.py:greet", "--environment", "env.json", *options, "--instance", sent["instance"])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.stdout) == sent["body"]["job"]
    done = call(
        "render", "flows.py:greet", "--json", "--environment", "env.json", *options, "--instance", sent["instance"]
    )
    assert json.loads(done.stdout) == sent["body"]


def _sent(environment: KubernetesJobEnvironment, **options: Any) -> dict[str, Any]:
    """The request that a worker stores for such a run."""
    from dispatcher.runs.routing import Route

    records = trusting(open_memory())
    records.runs.create(
        [make_record(flow="étl", environment=environment.to_json(), route=Route("kubernetes"), key_id="k1", **options)]
    )
    settings = Settings.load()
    backends = Backends(settings)
    one = Provisioner(records=records, keys=KeyRing(KEYS), settings=settings, backend=backends, owner="w")
    record = one.provision("run1")  # there is no cluster: the request is stored, and will be sent again
    assert record.request is not None
    return {**record.request, "instance": records.instance}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "LocalEnvironment runs flows in the worker's own process, so nothing is sent: name another --environment"),
        (["--environment", "env.json", "--storage", "local.json"], "can't reach a LocalStorage"),
        (
            ["--environment", "team.json"],
            "namespace team: this worker serves default (DISPATCHER__KUBERNETES__NAMESPACES)",
        ),
        (["--environment", "bad.json"], "job_spec: kind: must be Job"),
    ],
)
def test_what_could_not_be_sent_is_said(here: Path, arguments: list[str], said: str) -> None:
    (here / "local.json").write_text(json.dumps({"type": "LocalStorage", "directory": "/flows"}))
    (here / "team.json").write_text(json.dumps(KubernetesJobEnvironment(namespace="team").to_json()))
    bad = {**KubernetesJobEnvironment(job_spec=CUSTOM).to_json(), "job_spec": {**CUSTOM, "kind": "Pod"}}
    (here / "bad.json").write_text(json.dumps(bad))
    done = call("render", "flows.py:greet", *arguments)
    assert done.exit_code == 2
    assert said in done.output
