"""The command line without a server: arguments, targets, errors, keys, completion, and runs in this process."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, Optional

import click
import pytest

from dispatcher.cli import formatting, options, targets
from dispatcher.cli.root import root
from dispatcher.cli.runs import Since
from dispatcher.errors import InvalidInput, InvalidParameters
from dispatcher.flows.flow import Flow
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.retry import Retry
from dispatcher.runs.states import State
from tests.unit.command import FLOWS, call


class TestRoot:
    def test_help_names_every_command(self) -> None:
        shown = call("--help")
        assert shown.exit_code == 0
        for name in root.commands:
            assert f"\n  {name} " in shown.stdout
        assert list(root.commands)[:3] == ["run", "submit", "cancel"], "what a person needs first"

    @pytest.mark.parametrize("name", sorted(root.commands))
    def test_every_command_explains_itself(self, name: str) -> None:
        shown = call(name, *(["install"] if name == "admin" else []), "--help")
        assert shown.exit_code == 0
        assert "--url" in shown.stdout
        assert "--debug" in shown.stdout

    @pytest.mark.parametrize("name", ["run", "submit", "list", "show", "logs", "events", "explain", "status", "doctor"])
    def test_reads_have_json(self, name: str) -> None:
        assert "--json" in call(name, "--help").stdout

    def test_help_is_quick_because_it_imports_little(self) -> None:
        code = (
            "import sys; from dispatcher.cli.root import root; root.main(['--help'], standalone_mode=False)\n"
            "print([name for name in ('pydantic', 'redis', 'celery', 'kombu', 'rich') if name in sys.modules])"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert shown.stdout.splitlines()[-1] == "[]"

    def test_version(self) -> None:
        shown = call("--version")
        assert shown.exit_code == 0
        assert shown.stdout.startswith("dispatcher, version ")

    @pytest.mark.parametrize(
        ("arguments", "remedy"),
        [
            (["lisst"], "no such command"),
            (["list", "--state", "DONE"], "is not one of"),
            (["list", "--limit", "0"], "--limit"),
            (["run"], "missing argument 'TARGET'"),
            (["cancel"], "missing argument 'RUN...'"),
            (["worker", "--concurrency", "none"], "--concurrency"),
            (["list", "--since", "whenever"], "write how long ago"),
            (["run", "m:f", "--timeout", "soon"], "90, 1.5m, 2h, 7d"),
        ],
    )
    def test_usage_errors_are_one_line_with_a_remedy(self, arguments: list[str], remedy: str) -> None:
        shown = call(*arguments)
        assert shown.exit_code == 2
        assert shown.stdout == ""
        assert shown.stderr.startswith("error: ")
        assert shown.stderr.count("\n") == 1
        assert remedy.lower() in shown.stderr.lower()
        assert "(" in shown.stderr

    def test_url_stands_before_or_behind_the_command(self) -> None:
        for arguments in (["--url", "ftp://nowhere", "list"], ["list", "--url", "ftp://nowhere"]):
            shown = call(*arguments)
            assert shown.exit_code == 2
            assert "scheme 'ftp'" in shown.stderr
            assert "Traceback" not in shown.stderr

    def test_debug_gives_the_traceback(self) -> None:
        shown = call("list", "--url", "ftp://nowhere", "--debug")
        assert shown.exit_code == 2
        assert "Traceback" in shown.stderr
        assert shown.stderr.splitlines()[-1].startswith("error: ")

    def test_a_wrong_variable_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISPATCHER__SUBMIT_WITHIN", "-1")
        shown = call("list")
        assert shown.exit_code == 2
        assert "DISPATCHER__SUBMIT_WITHIN" in shown.stderr

    def test_unreachable_server_is_its_own_exit_code(self, tmp_path: Path) -> None:
        shown = call("list", "--url", f"unix://{tmp_path}/nobody?db=0")
        assert shown.exit_code == 6
        assert shown.stderr.count("\n") == 1
        assert "dispatcher doctor" in shown.stderr


class TestTarget:
    def test_module_of_the_current_directory(self, project: Path) -> None:
        assert targets.load("flows_of_test:greet", Flow, argument="TARGET").name == "greet"

    def test_file_from_elsewhere_finds_its_neighbours(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (project / "neighbour_of_test.py").write_text("from flows_of_test import greet")
        monkeypatch.chdir("/")
        flow = targets.load(f"{project}/neighbour_of_test.py:greet", Flow, argument="TARGET")
        assert flow.name == "greet"

    def test_file_never_takes_a_modules_place(self, project: Path) -> None:
        (project / "click.py").write_text(FLOWS)
        assert targets.load("click.py:greet", Flow, argument="TARGET").name == "greet"
        assert sys.modules["click"] is click

    def test_the_only_one_needs_no_name(self, project: Path) -> None:
        (project / "single_of_test.py").write_text("from dispatcher import flow\n@flow\ndef one(): ...\n")
        assert targets.load("single_of_test.py", Flow, argument="TARGET").name == "one"

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("nothing_of_this_name:f", "no module 'nothing_of_this_name'"),
            ("nothing.py:f", "no file 'nothing.py'"),
            (":f", "module:name or file.py:name"),
            ("flows_of_test:gret", "has no 'gret'; it has greet, breaks"),
            ("flows_of_test:plain", "decorate it with @flow"),
            ("flows_of_test:sys", "is a module, not a Flow"),
            ("flows_of_test", "say which: flows_of_test:greet"),
            ("broken_of_test.py:f", "ZeroDivisionError: division by zero"),
            ("lacking_of_test.py:f", "No module named 'surely_not_installed'"),
            ("exits_of_test.py:f", "SystemExit"),
        ],
    )
    def test_what_is_wrong_is_named(self, project: Path, text: str, problem: str) -> None:
        (project / "broken_of_test.py").write_text("\n1 / 0\n")
        (project / "lacking_of_test.py").write_text("import surely_not_installed\n")
        (project / "exits_of_test.py").write_text("raise SystemExit(3)\n")
        with pytest.raises(InvalidInput) as caught:
            targets.load(text, Flow, argument="TARGET")
        assert problem in str(caught.value)

    def test_an_error_of_the_module_says_where(self, project: Path) -> None:
        (project / "broken_of_test.py").write_text("\n1 / 0\n")
        with pytest.raises(InvalidInput, match=r"broken_of_test.py, line 2"):
            targets.load("broken_of_test.py:f", Flow, argument="TARGET")

    def test_a_file_meant_as_a_module(self, project: Path) -> None:
        (project / "below").mkdir()
        (project / "below" / "some.py").write_text(FLOWS)
        with pytest.raises(InvalidInput, match=r"did you mean below/some.py"):
            targets.load("below/some:greet", Flow, argument="TARGET")


def typed(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    a: str,
    b: Optional[str],  # noqa: UP045 - the old form too
    c: str | None,
    d: Literal["x", "y"],
    e: int,
    f,
    g: Unknown,  # type: ignore[name-defined]  # noqa: F821
    h: str | int = 1,
    **rest: str,
) -> None: ...


class TestParameters:
    @pytest.mark.parametrize(
        ("pair", "value"),
        [
            ("a=1", "1"),
            ("b=null", "null"),
            ("c={}", "{}"),
            ("d=x", "x"),
            ("e=12", 12),
            ('f={"k": [1, null]}', {"k": [1, None]}),
            ("g=true", True),
            ("h=7", 7),
            ("a=", ""),
            ("a=x=y", "x=y"),
            ("rest_key=[1]", [1]),
        ],
    )
    def test_text_where_annotated_so_else_json(self, pair: str, value: Any) -> None:
        (parsed,) = targets.parameters(typed, [pair]).values()
        assert parsed == value
        assert type(parsed) is type(value)

    @pytest.mark.parametrize(
        ("pairs", "problem"),
        [
            (["e=abc"], "-p e: 'abc' is not JSON; expected JSON for int"),
            (["e=True"], "write -p e=true"),
            (["f=None"], "write -p f=null"),
            (["f=text"], """for text write -p 'f="text"'"""),
            (["e"], "write -p name=value"),
            (["e=two"], "a number is written as it is"),
            (["=1"], "write -p name=value"),
            (["e=1", "e=2"], "given twice"),
        ],
    )
    def test_errors_name_key_value_and_what_is_expected(self, pairs: list[str], problem: str) -> None:
        with pytest.raises(InvalidParameters) as caught:
            targets.parameters(typed, pairs)
        assert problem in str(caught.value)

    def test_an_unknown_name_is_said_before_its_value_is_read(self) -> None:
        with pytest.raises(InvalidParameters, match="-p nmae: the flow has no such parameter; it takes name, times"):
            targets.parameters(lambda name, times: None, ["nmae=Ada"])


class TestOptions:
    @pytest.mark.parametrize(
        ("text", "seconds"), [("90", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604800), ("250ms", 0.25), ("3s", 3)]
    )
    def test_durations(self, text: str, seconds: float) -> None:
        assert options.DURATION.convert(text, None, None) == seconds

    @pytest.mark.parametrize("text", ["", "m", "-1", "1y", "1 m 2 s", "nan"])
    def test_no_durations(self, text: str) -> None:
        with pytest.raises(click.BadParameter):
            options.DURATION.convert(text, None, None)

    def test_since(self) -> None:
        import time

        assert Since().convert("2h", None, None) == pytest.approx(time.time() - 7200, abs=5)
        assert Since().convert("1970-01-02T00:00:00+00:00", None, None) == 86400

    def test_retries(self) -> None:
        assert options.retries("3") == 3
        assert options.retries('{"count": 2, "delay": 1.5, "on": ["user_error"]}') == Retry(
            2, delay=1.5, on=["user_error"]
        )

    @pytest.mark.parametrize("text", ["many", "true", "[1]", '{"delay": 1}', '{"count": 1, "wait": 2}', "1.5"])
    def test_wrong_retries(self, text: str) -> None:
        with pytest.raises(InvalidInput, match=r"--retries"):
            options.retries(text)


class TestSealedParts:
    """Sealed code in a file would be signed with the submitter's key, and run by a worker."""

    @pytest.mark.parametrize(
        ("data", "where"),
        [
            ({"type": "LocalEnvironment", "on_exit": {"sealed": "eA=="}}, "on_exit"),
            ({"type": "LocalEnvironment", "on_exit": {"ref": "os:getpid"}, "on_start": {"sealed": "eA=="}}, "on_start"),
            ({"type": "RemoteEnvironment", "executor": {"sealed": "eA=="}}, "executor"),
            ({"type": "Third", "deep": [1, {"er": {"sealed": {}}}]}, r"deep\[1\]\.er"),
        ],
    )
    def test_they_are_refused_by_their_place(self, tmp_path: Path, data: Any, where: str) -> None:
        path = tmp_path / "given.json"
        path.write_text(json.dumps(data))
        with pytest.raises(InvalidInput, match=rf"given\.json holds sealed code \({where}\).*--allow-sealed"):
            options.environment(str(path), ())
        with pytest.raises(InvalidInput, match=rf"--storage: .*holds sealed code \({where}\)"):
            options.storage(str(path))

    def test_the_flag_allows_them(self, tmp_path: Path) -> None:
        path = tmp_path / "given.json"
        path.write_text(json.dumps({"type": "LocalEnvironment", "on_exit": {"sealed": "eA=="}}))
        environment = options.environment(str(path), (), allow_sealed=True)
        assert environment is not None
        assert environment.to_json()["on_exit"] == {"sealed": "eA=="}

    def test_names_and_plain_values_need_none(self, tmp_path: Path) -> None:
        path = tmp_path / "given.json"
        data = {"type": "RemoteEnvironment", "executor": "a.B", "executor_kwargs": {"sealed": 1, "more": 2}}
        path.write_text(json.dumps({**data, "on_exit": {"ref": "os:getpid"}}))
        assert options.environment(str(path), ()) is not None

    def test_brackets_without_end_are_no_json(self, tmp_path: Path) -> None:
        path = tmp_path / "given.json"
        path.write_text("[" * 100_000)
        with pytest.raises(InvalidInput, match=r"given\.json is not JSON"):
            options.environment(str(path), ())


class TestWords:
    def test_phases_leave_out_steps_without_time(self) -> None:
        def event(kind: EventKind, state: State, time: float, **data: Any) -> Event:
            return Event(run_id="r", attempt=1, kind=kind, state=state, time=time, data=data)

        rows = formatting.phases(
            [
                event(EventKind.QUEUED, State.QUEUED, 100.0),
                event(EventKind.CLAIMED, State.CLAIMED, 101.5, owner="w1"),
                event(EventKind.PROVISIONING, State.PROVISIONING, 101.5),
                event(EventKind.PENDING, State.PENDING, 101.5),
                event(EventKind.STARTED, State.RUNNING, 101.5),
                event(
                    EventKind.EXITED, State.CRASHED, 103.5, cause="killed", exit_code=137, final=True, on_exit="none"
                ),
            ]
        )
        assert [(passed, name, note) for _, passed, name, note in rows] == [
            ("", "queued", ""),
            ("+1.5 s", "claimed", "by w1"),
            ("+0 ms", "started", ""),
            ("+2.0 s", "exited → CRASHED", "killed, exit code 137"),
        ]

    def test_exit_codes_are_those_promised(self) -> None:
        assert {str(state): code for state, code in formatting.EXIT_CODES.items()} == {
            "SUCCEEDED": 0, "FAILED": 1, "CRASHED": 3, "TIMED_OUT": 4, "CANCELLED": 5,
        }  # fmt: skip


class TestKeygen:
    def test_prints_json_that_the_settings_take(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from dispatcher.serialization import KeyRing
        from dispatcher.settings import Settings

        shown = call("keygen")
        assert shown.exit_code == 0
        monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", shown.stdout)
        assert KeyRing.from_settings(Settings.load()).signing_key_id == next(iter(json.loads(shown.stdout)))

    def test_file_is_private_and_rotates(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        assert call("keygen", "--file", str(path)).exit_code == 0
        first = json.loads(path.read_text())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        shown = call("keygen", "--file", str(path))
        assert shown.exit_code == 0
        both = json.loads(path.read_text())
        assert list(both)[1:] == list(first)
        assert len(both) == 2
        assert next(iter(both.values())) not in shown.output, "a secret never shows where a file was asked for"

    def test_leaves_other_files_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not keys")
        shown = call("keygen", "--file", str(path))
        assert shown.exit_code == 2
        assert path.read_text() == "not keys"
        assert "name another file" in shown.stderr

    def test_a_place_that_others_may_write_is_refused(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        shown = call("keygen", "--file", str(tmp_path / "keys.json"))
        assert shown.exit_code == 2
        assert f"--file: {tmp_path} (mode 0777" in shown.stderr
        assert list(tmp_path.iterdir()) == []

    def test_keys_that_others_could_read_are_not_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        assert call("keygen", "--file", str(path)).exit_code == 0
        path.chmod(0o666)
        shown = call("keygen", "--file", str(path))
        assert shown.exit_code == 2
        assert f"chmod 600 {path}" in shown.stderr

    def test_no_folder(self, tmp_path: Path) -> None:
        shown = call("keygen", "--file", str(tmp_path / "none" / "keys.json"))
        assert shown.exit_code == 2
        assert shown.stderr.startswith("error: --file:")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_the_command(shell: str) -> None:
    shown = call("completion", shell)
    assert shown.exit_code == 0
    assert "_DISPATCHER_COMPLETE" in shown.stdout
    assert "dispatcher" in shown.stdout
