"""The doctor: each fault has its level and a remedy."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dispatcher.admin.doctor import misspelt, serving
from dispatcher.admin.server_health import judge
from dispatcher.inspection.finding import Finding, Level
from dispatcher.records.redis.connection.health import ServerHealth
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs.routing import Offer, Route
from tests.unit.command import call


class TestDoctor:
    GOOD = ServerHealth(clock=1000.0, product="valkey", version="9.1.0", appends=True, append_failed=False,
                  eviction="noeviction", memory=10, limit=0, primary=True)  # fmt: skip

    def levels(self, **changes: Any) -> dict[str, Level]:
        return {finding.subject: finding.level for finding in judge(replace(self.GOOD, **changes), "here", now=1000.5)}

    def test_all_well(self) -> None:
        assert set(self.levels().values()) == {Level.OK}

    @pytest.mark.parametrize(
        ("changes", "subject", "level"),
        [
            ({"appends": False}, "persistence", Level.WARNING),
            ({"append_failed": True}, "persistence", Level.PROBLEM),
            ({"eviction": "allkeys-lru"}, "memory", Level.PROBLEM),
            ({"limit": 12}, "memory", Level.WARNING),
            ({"clock": 990.0}, "clock", Level.WARNING),
            ({"product": "redis", "version": "5.0.7"}, "server", Level.PROBLEM),
            ({"primary": False}, "server", Level.PROBLEM),
            ({"version": None}, "server", Level.WARNING),
        ],
    )
    def test_each_fault_has_its_level_and_a_remedy(self, changes: dict[str, Any], subject: str, level: Level) -> None:
        assert self.levels(**changes)[subject] is level
        findings = list(judge(replace(self.GOOD, **changes), "here", now=1000.5))
        assert all(finding.remedy for finding in findings if finding.level is not Level.OK)

    def test_workers(self) -> None:
        def worker(python: str) -> WorkerInfo:
            offer = Offer(backends=frozenset({"local"}))
            return WorkerInfo(id="w1", host="h", pid=1, offer=offer, concurrency=2, started_at=0, python=python)

        assert [finding.level for finding in serving([worker("3.11.2")], {}, python=(3, 11))] == [Level.OK]
        assert [finding.level for finding in serving([worker("3.12.1")], {}, python=(3, 11))] == [
            Level.OK,
            Level.WARNING,
        ]
        findings = list(serving([], {"local:gpu": (Route("local", ("gpu",)), 3)}, python=(3, 11)))
        assert [finding.subject for finding in findings] == ["workers", "queue"]
        assert "`dispatcher worker --backend local --label gpu`" in findings[1].remedy

    def test_without_a_server(self, tmp_path: Path) -> None:
        shown = call("doctor", "--url", f"unix://{tmp_path}/nobody?db=0", "--json")
        assert shown.exit_code == 1
        findings = {entry["subject"]: Finding(**entry) for entry in json.loads(shown.stdout)}
        assert findings["python"].level == Level.OK
        assert findings["server"].level == Level.PROBLEM
        assert findings["keys"].level == Level.PROBLEM
        assert "dispatcher keygen" in findings["keys"].text + findings["keys"].remedy

    def test_a_wrong_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISPATCHER__TIMING__LEASE", "no")
        shown = call("doctor")
        assert shown.exit_code == 1
        assert "DISPATCHER__TIMING__LEASE" in shown.stdout

    def test_a_wrong_setting_of_a_backend_is_named_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISPATCHER__KUBERNETES__IMGE", "a:1")
        shown = call("doctor", "--backend", "kubernetes")
        assert shown.exit_code == 1
        assert shown.stdout.count("DISPATCHER__KUBERNETES__IMGE: isn't a setting") == 1
        assert "dispatcher doctor" not in shown.stdout, "that is what was called"

    def test_a_missing_package_of_a_backend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kubernetes", None)
        shown = call("doctor", "--backend", "kubernetes", "--url", "redis://127.0.0.1:1", "--json")
        [finding] = [entry for entry in json.loads(shown.stdout) if entry["subject"] == "api"]
        assert finding["remedy"] == "pip install 'flow-dispatcher[kubernetes]'"
        assert finding["text"].startswith("Kubernetes needs kubernetes")

    def test_a_misspelt_setting(self) -> None:
        groups = ["worker", "url", "run"]
        assert list(misspelt(["DISPATCHER__URL", "DISPATCHER__WORKER__DRAIN", "DISPATCHER__RUN__ID"], groups)) == []
        [finding] = misspelt(["DISPATCHER__WROKER__DRAIN"], groups)
        assert (finding.level, finding.remedy) == (Level.WARNING, "did you mean DISPATCHER__WORKER?")
        [finding] = misspelt(["DISPATCHER__ZZZZ"], groups)
        assert "DISPATCHER__ZZZZ" in finding.text

    def test_a_file_of_keys_is_examined_at_the_laptop_server_too(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("DISPATCHER__URL", raising=False)
        monkeypatch.delenv("DISPATCHER__SIGNING_KEYS", raising=False)
        monkeypatch.setenv("DISPATCHER__STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setenv("DISPATCHER__SIGNING_KEYS_FILE", str(tmp_path / "nosuch.json"))
        shown = call("doctor", "--json")
        assert shown.exit_code == 1
        [finding] = [entry for entry in json.loads(shown.stdout) if entry["level"] == Level.PROBLEM]
        assert "nosuch.json" in finding["text"]

    def test_bare_calls_print_their_help_as_it_is(self) -> None:
        for words in ((), ("admin",)):
            shown = call(*words)
            assert shown.exit_code == 2
            assert "\nOptions:\n" in shown.stderr
            assert not shown.stderr.startswith("error:")
