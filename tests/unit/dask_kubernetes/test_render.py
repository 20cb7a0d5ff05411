"""``dispatcher render`` prints the Job and a worker's Pod; a request's facts for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from backends.dask_kubernetes.summary import pages, summary
from backends.kubernetes import manifest as jobs
from dispatcher import DaskKubernetesEnvironment
from dispatcher.cli.requests import summary as shown_facts
from dispatcher.runs.routing import Route
from dispatcher.runs.states import State
from tests.unit.command import FLOWS, call
from tests.unit.dask_kubernetes.pods import CUSTOM, build, custom
from tests.unit.making import make_record


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with flows, in a process without server or cluster."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPATCHER__URL", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPATCHER__EMBEDDED", "false")
    (tmp_path / "flows.py").write_text(FLOWS)
    return tmp_path


def test_it_prints_job_and_pod_with_their_digests(folder: Path) -> None:
    environment = DaskKubernetesEnvironment(0, 4, image="flows:1", worker_spec=CUSTOM)
    (folder / "env.json").write_text(json.dumps(environment.to_json()))
    result = call("render", "flows.py:greet", "--environment", "env.json", "-p", "name=x")
    assert result.exit_code == 0, result.output
    job, pod = yaml.safe_load_all(result.stdout)
    assert (job["kind"], pod["kind"]) == ("Job", "Pod")
    assert pod["metadata"]["name"] == f"{job['metadata']['name']}-w1"
    digest = job["metadata"]["annotations"]["flow-dispatcher/digest"]
    assert jobs.digest(job) == digest
    of_pod = pod["metadata"]["annotations"]["flow-dispatcher/digest"]
    assert result.stdout.startswith(f"# namespace default; digest {digest}\n")
    assert f"---\n# 0 to 4 workers, each named like w1; digest {of_pod}\n" in result.stdout
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "UID-OF-THE-JOB"
    assert "value: tls://ADDRESS-OF-THE-FLOW-POD:8786\n" in result.stdout


def test_it_warns_of_what_a_worker_with_these_settings_refuses(folder: Path) -> None:
    environment = DaskKubernetesEnvironment(worker_spec=custom(spec__hostPID=True))
    (folder / "env.json").write_text(json.dumps(environment.to_json()))
    result = call("render", "flows.py:greet", "--environment", "env.json")
    assert result.exit_code == 0, result.output
    assert result.stderr == (
        "warning: with these settings a worker refuses it: worker_spec: spec.hostPID: True isn't allowed: "
        "DISPATCHER__KUBERNETES__ALLOWED_PRIVILEGES doesn't name hostPID\n"
    )


def test_the_environment_has_a_default_by_name(folder: Path) -> None:
    result = call("render", "flows.py:greet", "--on", "dask-kubernetes")
    assert result.exit_code == 0, result.output
    assert [manifest["kind"] for manifest in yaml.safe_load_all(result.stdout)] == ["Job", "Pod"]


def test_a_file_of_the_configuration_may_name_a_pod(folder: Path) -> None:
    (folder / "pod.yaml").write_text(yaml.safe_dump(CUSTOM))
    (folder / "dispatcher.toml").write_text(
        '[environments.wide]\ntype = "DaskKubernetesEnvironment"\nmax_workers = 9\nworker_spec_file = "pod.yaml"\n'
    )
    result = call("render", "flows.py:greet", "--on", "wide")
    assert result.exit_code == 0, result.output
    assert "# 1 to 9 workers" in result.stdout
    assert "app: etl\n" in result.stdout


def test_the_facts_of_a_request() -> None:
    facts = summary(build(DaskKubernetesEnvironment(2, 8, worker_spec=CUSTOM)))
    assert facts["workers allowed"] == "2 to 8"
    assert facts["worker resources"] == "requests: cpu 1; limits: cpu 2, memory 4G"
    assert facts["resources"] == "requests: cpu 100m, memory 256Mi"


@pytest.mark.parametrize("workers", [None, [], {}, {"min": "1", "max": {}}, {"pod": [], "container": {}}])
def test_a_request_that_nobody_here_wrote_has_fewer_facts(workers: object) -> None:
    facts = summary({**build(), "workers": workers})
    assert not {"workers allowed", "worker resources"} & set(facts)
    assert facts["namespace"] == "default"


def test_show_says_how_the_scheduler_s_pages_are_reached_while_the_flow_runs() -> None:
    request = build(DaskKubernetesEnvironment())
    record = make_record(route=Route("dask-kubernetes")).but(request={"body": request}, state=State.RUNNING)
    facts, job = shown_facts(record), request["job"]["metadata"]["name"]
    assert facts["dask pages"] == f"kubectl port-forward -n {request['namespace']} job/{job} 8787:8787"
    assert facts["then open"] == "http://127.0.0.1:8787/info/main/workers.html"
    assert "dask pages" not in shown_facts(record.but(state=State.SUCCEEDED))


def test_a_forged_namespace_is_quoted_for_the_shell() -> None:
    assert "'$(reboot)'" in pages({**build(DaskKubernetesEnvironment()), "namespace": "$(reboot)"})["dask pages"]
    assert pages({"namespace": "$(reboot)"}) == {}
