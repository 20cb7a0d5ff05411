"""A wrong setting is told with its variable, its value unless that may be secret, and an example."""

from __future__ import annotations

import pytest

from backends.kubernetes.settings import KubernetesSettings
from dispatcher.errors import InvalidSettings
from dispatcher.settings import Settings

WRONG = {
    "WORKER__DRAIN=five": "must be a valid number, .*, got 'five'; for example DISPATCHER__WORKER__DRAIN=30 ",
    "WORKER__DRAIN=inf": "must be a finite number, got 'inf'; for example",
    "WORKER__CONCURRENCY=0": "must be greater than or equal to 1, got '0'; for example",
    "WORKER__BACKENDS=[local]": r"must be JSON, got '\[local\]'; .*__BACKENDS='\[\"local\", \"remote\"\]' ",
    "WORKER__BACKENDS=local,": r"must be JSON, got 'local,'; .*__BACKENDS='\[\"local\", \"remote\"\]' ",
    "KUBERNETES__NAMESPACES=a b": r"must be JSON, got 'a b'; .*__NAMESPACES='\[\"default\"\]' ",
    'WORKER__BACKENDS="local"': r"must be a JSON list, got 'local'; for example DISPATCHER__WORKER__BACKENDS='\[",
    "WORKER__DRIAN=5": r"isn't a setting; did you mean DISPATCHER__WORKER__DRAIN\?",
    "DEFAULTS__TIMEOUT=nan": "must be a finite number, got 'nan'; for example DISPATCHER__DEFAULTS__TIMEOUT=3600",
    "EMBEDDED=nope": "must be a valid boolean, .*, got 'nope'; for example DISPATCHER__EMBEDDED=false",
    "KUBERNETES__NAMESPACES=[]": r".*, got \[\]; for example DISPATCHER__KUBERNETES__NAMESPACES='\[\"default\"\]'",
    "WORKER__SCOPE=\x1b[31m" + 500 * "x": r".*, got '\\x1b\[31mx{50,80}… ",
    "WORKER=x": r"must be JSON \(",
}


@pytest.mark.parametrize("assignment", WRONG, ids=lambda assignment: str(assignment[:25]))
def test_a_wrong_setting(assignment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, value = assignment.partition("=")
    monkeypatch.setenv(f"DISPATCHER__{name}", value)
    with pytest.raises(InvalidSettings, match=f"^DISPATCHER__{name}: {WRONG[assignment]}"):
        Settings.load()


LISTS = {"flows": ("flows",), "eu, gpu": ("eu", "gpu"), '["flows"]': ("flows",), "2024": ("2024",), "null": ("null",)}


@pytest.mark.parametrize("value", LISTS)
def test_a_list_of_words_needs_no_json(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER__KUBERNETES__NAMESPACES", value)
    monkeypatch.setenv("DISPATCHER__WORKER__LABELS", value)
    settings = Settings.load()
    assert settings.group(KubernetesSettings).namespaces == LISTS[value]
    assert settings.worker.labels == frozenset(LISTS[value])


@pytest.mark.parametrize(
    "name", ["SIGNING_KEYS", "DEFAULTS__EXECUTOR_KWARGS", "KUBERNETES", "DEFAULTS", "URL__X", "KUBERNETES__URL__X"]
)
@pytest.mark.parametrize("value", ["hidden", '["hidden"]', '{"k": "hidden"}', '{"k": {"secret": "hidden", "x": 1}}'])
def test_what_may_be_secret_is_never_shown(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DISPATCHER__{name}", value)
    try:
        Settings.load()
    except InvalidSettings as error:
        assert "hidden" not in str(error)  # noqa: PT017 - some of these are fine


def test_every_wrong_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER__WORKER__DRAIN", "five")
    monkeypatch.setenv("DISPATCHER__LIMITS__LOG", "0")
    with pytest.raises(InvalidSettings, match=r"WORKER__DRAIN: .*; DISPATCHER__LIMITS__LOG: "):
        Settings.load()
