"""``dispatcher render`` prints, offline, the exact request of a worker, with its digest."""

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
from workers.backend_cache import BackendCache
from workers.execution.provisioning import Provisioner

KEYS = {"k1": "0123456789abcdef"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with flows and environments, in a process without server or cluster."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPATCHER__URL", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPATCHER__EMBEDDED", "false")
    (tmp_path / "flows.py").write_text(FLOWS)
    _write_environment(tmp_path, KubernetesJobEnvironment(image="flows:1"))
    return tmp_path


def _write_environment(folder: Path, environment: KubernetesJobEnvironment) -> None:
    (folder / "env.json").write_text(json.dumps(environment.to_json()))


def test_it_prints_the_job_with_its_digest(folder: Path) -> None:
    result = call("render", "flows.py:greet", "--environment", "env.json", "-p", "name=x")
    assert result.exit_code == 0, result.output
    job = yaml.safe_load(result.stdout)
    assert (job["kind"], job["metadata"]["namespace"]) == ("Job", "default")
    digest = job["metadata"]["annotations"]["flow-dispatcher/digest"]
    assert manifest.digest(job) == digest
    assert result.stdout.startswith(f"# namespace default; digest {digest}\n")
    again = call("render", "flows.py:greet", "--environment", "env.json").stdout
    assert yaml.safe_load(again)["metadata"]["name"] != job["metadata"]["name"]  # another run


def test_it_notes_what_pod_security_refuses(folder: Path) -> None:
    assert "Pod Security" not in call("render", "flows.py:greet", "--environment", "env.json").stderr
    spec = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "flow"}]}}}}
    _write_environment(folder, KubernetesJobEnvironment(job_spec=spec, image="flows:1"))
    result = call("render", "flows.py:greet", "--environment", "env.json")
    assert result.exit_code == 0
    assert "note: a namespace that enforces Pod Security `restricted` refuses its pod: spec.template" in result.stderr
    assert "containers[0].securityContext.allowPrivilegeEscalation: must be false" in result.stderr


def test_it_is_exactly_what_a_worker_sends_for_that_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps(KEYS))
    monkeypatch.setenv("DISPATCHER__KUBERNETES__NAMESPACES", '["default", "team"]')
    environment = KubernetesJobEnvironment(job_spec=CUSTOM, env={"A": "ü"})
    _write_environment(folder, environment)
    sent = _stored_request(environment, timeout=60, start_within=30)
    options = ["--timeout", "60", "--start-within", "30", "--name", "étl", "--run-id", "run1", "--attempt", "1"]
    result = call("render", "flows.py:greet", "--environment", "env.json", *options, "--instance", sent["instance"])
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout) == sent["body"]["job"]
    result = call(
        "render", "flows.py:greet", "--json", "--environment", "env.json", *options, "--instance", sent["instance"]
    )
    assert json.loads(result.stdout) == sent["body"]


def _stored_request(environment: KubernetesJobEnvironment, **options: Any) -> dict[str, Any]:
    """Return the request that a worker stores for such a run."""
    from dispatcher.runs.routing import Route

    records = trusting(open_memory())
    records.runs.create(
        [
            make_record(
                flow="greet", environment=environment.to_json(), route=Route("kubernetes"), key_id="k1", **options
            )
        ]
    )
    settings = Settings.load()
    backends = BackendCache(settings)
    provisioner = Provisioner(records=records, keys=KeyRing(KEYS), settings=settings, backend=backends, owner="w")
    record = provisioner.provision("run1")  # there is no cluster: the request is stored, and will be sent again
    assert record.request is not None
    return {**record.request, "instance": records.instance}


def test_it_warns_of_what_a_worker_with_these_settings_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {**CUSTOM, "metadata": {}}
    job["spec"] = {"template": {"spec": {"hostNetwork": True, "containers": [{"name": "flow"}]}}}
    _write_environment(folder, KubernetesJobEnvironment(job_spec=job))
    result = call("render", "flows.py:greet", "--environment", "env.json")
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)["spec"]["template"]["spec"]["hostNetwork"] is True
    assert result.stderr.startswith(
        "warning: with these settings a worker refuses it: spec.template.spec.hostNetwork: True isn't allowed: "
        "DISPATCHER__KUBERNETES__ALLOWED_PRIVILEGES doesn't name hostNetwork\n"
    )
    monkeypatch.setenv("DISPATCHER__KUBERNETES__ALLOWED_PRIVILEGES", '["hostNetwork"]')
    assert "a worker refuses it" not in call("render", "flows.py:greet", "--environment", "env.json").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
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
def test_a_request_that_could_not_be_sent_is_an_error(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "local.json").write_text(json.dumps({"type": "LocalStorage", "directory": "/flows"}))
    (folder / "team.json").write_text(json.dumps(KubernetesJobEnvironment(namespace="team").to_json()))
    bad = {**KubernetesJobEnvironment(job_spec=CUSTOM).to_json(), "job_spec": {**CUSTOM, "kind": "Pod"}}
    (folder / "bad.json").write_text(json.dumps(bad))
    result = call("render", "flows.py:greet", *arguments)
    assert result.exit_code == 2
    assert message in result.output
