"""The runner of the doctor's trials against a real server: it finds what a run would, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis

from backends.container.trial import trial_attempt, trial_secrets
from dispatcher.records.redis import open_redis
from dispatcher.runner.trial import try_out
from tests.integration.acl_server import INSTANCE, AclServer

pytestmark = pytest.mark.integration


def variables(url: str, directory: Path) -> dict[str, str]:
    """Return the variables of a container, with its secrets in a file."""
    attempt = trial_attempt({}, {}, start_within=60.0)
    file = directory / "variables.json"
    file.write_text(json.dumps({**trial_secrets(), "DISPATCHER__URL": url}))
    return {**attempt.variables, "DISPATCHER__RUN__SECRETS_FILE": str(file)}


def content(url: str) -> Mapping[bytes, bytes | None]:
    with redis.Redis.from_url(url) as server:
        return {key: server.dump(key) for key in server.keys("*")}


def test_it_claims_nothing(server_url: str, tmp_path: Path) -> None:
    records = open_redis(server_url)
    instance = records.instance
    records.close()
    before = content(server_url)
    report = try_out(variables(server_url, tmp_path))
    assert (report.instance, report.problem) == (instance, "")
    assert content(server_url) == before


def test_where_there_is_no_installation_it_makes_none(server_url: str, tmp_path: Path) -> None:
    report = try_out(variables(server_url, tmp_path))
    assert (report.instance, report.problem) == ("", "")
    assert not content(server_url)


def test_the_user_of_runners_suffices(acl_server: AclServer, tmp_path: Path) -> None:
    report = try_out(variables(acl_server.url("runner"), tmp_path))
    assert (report.instance, report.problem) == (INSTANCE, "")


def test_a_refused_user(acl_server: AclServer, tmp_path: Path) -> None:
    url = acl_server.url("runner")
    report = try_out(variables(url.replace("runner:", "runner:x"), tmp_path))
    assert report.denied
    assert "refuses the user name or the password" in report.problem
    assert "@" not in report.address


def test_a_user_without_the_rights(acl_server: AclServer, tmp_path: Path) -> None:
    report = try_out(variables(acl_server.url("flower"), tmp_path))
    assert report.denied
    assert "does not allow it to this user" in report.problem


def test_nobody_there(tmp_path: Path) -> None:
    report = try_out(variables("redis://127.0.0.1:1/0", tmp_path))
    assert (report.denied, "nothing listens at redis://127.0.0.1:1/0" in report.problem) == (False, True)
