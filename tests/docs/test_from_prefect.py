"""The page for those who come from Prefect 0.10 leaves out no argument, attribute or method of its environments."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import dispatcher

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "from-prefect-0.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([A-Za-z_]+)[^`]*`", PAGE))

_ALL = ("labels", "on_start", "on_exit")

#: The arguments of Prefect 0.10.7, by class.
ARGUMENTS = {
    "LocalEnvironment": _ALL,
    "RemoteEnvironment": ("executor", "executor_kwargs", *_ALL),
    "KubernetesJobEnvironment": ("job_spec_file", "executor_kwargs", *_ALL),
    "DaskKubernetesEnvironment": (
        "min_workers", "max_workers", "work_stealing", "scheduler_logs", "private_registry", "docker_secret", *_ALL,
        "scheduler_spec_file", "worker_spec_file",
    ),
}  # fmt: skip

#: Those that don't exist here, as a row of the page says.
LEFT_OUT = {("KubernetesJobEnvironment", "executor_kwargs")}

METHODS = ("setup", "execute", "serialize", "logger", "dependencies", "create_flow_run_job", "run_flow")


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_each_argument_is_taken_in_the_same_place_or_has_a_row(kind: str) -> None:
    ours = [name for name in inspect.signature(getattr(dispatcher, kind)).parameters if name != "self"]
    expected = [name for name in ARGUMENTS[kind] if (kind, name) not in LEFT_OUT]
    assert ours[: len(expected)] == expected
    assert set(ARGUMENTS[kind]) <= NAMED


def test_each_method_has_a_row() -> None:
    assert {*METHODS, "identifier_label"} <= NAMED
    for name in ("RemoteDaskEnvironment", "DaskCloudProviderEnvironment", "FargateTaskEnvironment", "Docker", "Local"):
        assert name in NAMED


def test_the_page_names_nothing_that_is_missing_here() -> None:
    for name in re.findall(r"`DISPATCHER__([A-Z_]+)`", PAGE):
        group, _, field = name.lower().partition("__")
        assert field in type(getattr(dispatcher.Settings.load(), group)).model_fields, name
