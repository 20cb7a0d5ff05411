"""``run`` without a server: the whole way of the command, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.command import call


class TestInThisProcess:
    """``memory://`` runs the flow during its submit: the whole way of ``run``, without a server."""

    @pytest.mark.parametrize(("flow", "code"), [("greet", 0), ("breaks", 1), ("odd", 0), ("leaves", 1)])
    def test_exit_codes(self, project: Path, flow: str, code: int) -> None:
        arguments = ["-p", "name=Ada"] if flow == "greet" else []
        shown = call("--url", "memory://", "run", f"flows_of_test.py:{flow}", *arguments)
        assert shown.exit_code == code, shown.output

    def test_what_is_printed_where(self, project: Path) -> None:
        arguments = ["-p", "name=Ada", "-p", "times=2", "-p", "title=Ms ", "-p", "extra=[1, null]"]
        shown = call("run", "flows_of_test:greet", *arguments, "--url", "memory://")
        assert shown.stdout.startswith("hello Ada\n{")
        assert json.loads(shown.stdout.partition("\n")[2]) == {"said": ["Ms Ada", "Ms Ada"], "extra": [1, None]}
        assert "exited → SUCCEEDED" in shown.stderr

        failed = call("run", "flows_of_test:breaks", "--url", "memory://")
        assert failed.stdout == ""
        assert "ValueError: no such luck" in failed.stderr.splitlines()[-1]

    def test_json_and_quiet(self, project: Path) -> None:
        arguments = ["run", "flows_of_test:greet", "-p", "name=Ada", "--url", "memory://"]
        view = json.loads(call(*arguments, "--json", "--tags", "a,b", "--retries", "2").stdout)
        assert view["result"] == {"said": ["Ada"], "extra": None}
        assert view["tags"] == ["a", "b"]
        assert view["options"]["retries"]["count"] == 2
        quiet = call(*arguments, "--quiet")
        assert json.loads(quiet.stdout) == view["result"]
        assert quiet.stderr == "hello Ada\n", "the flow's own words, aside"

    def test_environment_by_name_by_file_and_by_label(self, project: Path) -> None:
        (project / "places_of_test.py").write_text(
            "from dispatcher import LocalEnvironment\ngpu = LocalEnvironment(labels=['gpu'])\n"
        )
        (project / "place.json").write_text('{"type": "LocalEnvironment", "labels": ["gpu"]}')
        for choice in (
            ["--environment", "places_of_test:gpu"],
            ["--environment", "places_of_test.py"],
            ["--environment", "places_of_test"],
            ["--environment", "place.json"],
            ["--label", "gpu"],
        ):
            arguments = ["run", "flows_of_test:odd", "--url", "memory://", "--json", *choice]
            assert json.loads(call(*arguments).stdout)["labels"] == ["gpu"]

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["--environment", "none.json"], "can't be read"),
            (["--environment", "wrong.json"], "is not JSON"),
            (["--environment", "list.json"], "must hold a JSON object"),
            (["--environment", "other.json"], "Nowhere"),
            (["--environment", "flows_of_test:odd"], "is a Flow, not an Environment"),
            (["--storage", "list.json"], "must hold a JSON object"),
            (["-p", "unknown=1"], "unknown"),
            (["--timeout", "0"], "timeout"),
            (["--name", ""], "name"),
        ],
    )
    def test_wrong_options(self, project: Path, options: list[str], problem: str) -> None:
        (project / "wrong.json").write_text("{")
        (project / "list.json").write_text("[]")
        (project / "other.json").write_text('{"type": "Nowhere"}')
        shown = call("run", "flows_of_test:odd", "--url", "memory://", *options)
        assert shown.exit_code == 2, shown.output
        assert problem in shown.stderr
        assert shown.stderr.count("\n") == 1
