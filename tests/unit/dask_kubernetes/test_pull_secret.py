"""The pull Secret of a private registry: what it is made of, its name, and errors without values."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from backends.container.secret_sources import REGISTRY_CREDENTIALS
from backends.dask_kubernetes import pull_secret
from dispatcher.errors import Permanent
from dispatcher.runs.states import Cause

GIVEN = {
    "docker-server": "registry.example",
    "docker-username": "puller",
    "docker-password": "hunter2",
    "docker-email": "puller@example.org",
}


def credentials(**changes: Any) -> pull_secret.RegistryCredentials:
    values = {**GIVEN, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return pull_secret.RegistryCredentials.parse(json.dumps(values), source="REGISTRY")


def test_its_content_is_what_kubectl_makes() -> None:
    """As ``kubectl create secret docker-registry`` with the same options."""
    secret = pull_secret.manifest(credentials(), name="n", namespace="flows", instance="i1")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert secret["metadata"] == {"name": "n", "namespace": "flows", "labels": {"instance": "i1"}}
    assert json.loads(secret["stringData"][".dockerconfigjson"]) == {
        "auths": {
            "registry.example": {
                "username": "puller",
                "password": "hunter2",
                "email": "puller@example.org",
                "auth": base64.b64encode(b"puller:hunter2").decode(),
            }
        }
    }


def test_its_name_is_made_of_its_content_and_the_installation() -> None:
    name = pull_secret.secret_name(credentials(), "i1")
    assert re.fullmatch(r"flow-dispatcher-pull-[0-9a-f]{20}", name)
    assert pull_secret.is_pull_secret(name)
    assert pull_secret.secret_name(credentials(), "i1") == name
    others = {
        pull_secret.secret_name(credentials(), "i2"),
        *(pull_secret.secret_name(credentials(**{key.replace("-", "_"): "other"}), "i1") for key in GIVEN),
    }
    assert len(others) == 5
    assert name not in others


@pytest.mark.parametrize("key", GIVEN)
def test_a_missing_key_is_named_and_no_value_shown(key: str) -> None:
    rest = {name: value for name, value in GIVEN.items() if name != key}
    for credential, problem in (
        (rest, f"missing: {key}"),
        ({**GIVEN, key: 7}, f"{key} must be"),
        ({**GIVEN, key: ""}, key),
    ):
        with pytest.raises(Permanent, match=problem) as caught:
            pull_secret.RegistryCredentials.parse(json.dumps(credential), source="docker_secret: REGISTRY")
        assert caught.value.cause is Cause.CONFIG_ERROR
        assert str(caught.value).startswith("docker_secret: REGISTRY: ")
        assert not any(value in str(caught.value) for value in GIVEN.values())


@pytest.mark.parametrize("text", ["hunter2", '["hunter2"]', '"hunter2"', "", '{"docker-password": "hunter2"'])
def test_other_texts_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(Permanent, match="must be a JSON object with docker-server, ") as caught:
        pull_secret.RegistryCredentials.parse(text, source="REGISTRY")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(credentials())


def test_credentials_have_a_default_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REGISTRY_CREDENTIALS, raising=False)
    with pytest.raises(Permanent, match=r"docker_secret: DOCKER_REGISTRY_CREDENTIALS: this worker has no such secret"):
        pull_secret.read_credentials(None, folder=tmp_path)
    (tmp_path / "TEAM").write_text(json.dumps({**GIVEN, "docker-username": "team"}))
    monkeypatch.setenv(REGISTRY_CREDENTIALS, json.dumps(GIVEN))
    assert pull_secret.read_credentials(None, folder=tmp_path).username == "puller"
    assert pull_secret.read_credentials("TEAM", folder=tmp_path).username == "team"
