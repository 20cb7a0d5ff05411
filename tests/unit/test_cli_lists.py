"""Lists, short ids, ends of logs, help and completion of the command, without a server of its own."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from dispatcher.cli.help_pages import EXAMPLES, GROUPS
from dispatcher.cli.root import root
from dispatcher.cli.short_ids import LENGTH, shortened
from dispatcher.cli.terminal import _cut
from dispatcher.support.ids import new_id
from tests.unit.command import FLOWS

_IDS = st.lists(st.text("ab1", min_size=10, max_size=14), min_size=1, max_size=30, unique=True)


class TestShortIds:
    @given(_IDS, _IDS)
    def test_each_is_an_ending_that_no_other_has(self, ids: list[str], among: list[str]) -> None:
        short = shortened(ids, among)
        for run_id, text in short.items():
            assert run_id.endswith(text)
            others = {*ids, *among} - {run_id}
            contained = [other for other in others if other.endswith(run_id)]  # nothing shorter tells these apart
            assert contained or not [other for other in others if other.endswith(text)]

    def test_real_ones_have_eight_characters(self) -> None:
        ids = [new_id() for _ in range(20)]
        assert {len(text) for text in shortened(ids, ids).values()} == {LENGTH}


class TestHelp:
    def test_every_command_is_in_a_group_and_has_an_example(self) -> None:
        assert [name for names in GROUPS.values() for name in names] == list(root.commands)
        assert EXAMPLES.keys() == root.commands.keys()

    @pytest.mark.parametrize("name", sorted(EXAMPLES))
    def test_examples_are_valid(self, name: str) -> None:
        words = shlex.split(EXAMPLES[name].removeprefix('eval "$(').removesuffix(')"'))
        assert words[:2] == ["dispatcher", name]
        command = root.commands[name]
        if isinstance(command, click.Group):
            command, words = command.commands[words[2]], words[1:]
        context = command.make_context(name, words[2:], parent=root.make_context("dispatcher", [name]))
        assert context.params is not None


class TestCut:
    @pytest.mark.parametrize(
        ("text", "width", "shown"),
        [("short", 8, "short"), ("nightly-report-eu", 9, "nigh…t-eu"), ("日本語日本語", 8, "日 …本語")],
    )
    def test_names_are_cut_in_the_middle(self, text: str, width: int, shown: str) -> None:
        cell = _cut(Text(text), width, Console(force_terminal=True))
        assert cell.plain in {shown, shown.replace("…", "~")}
        assert cell.cell_len <= width


def _completed(*words: str) -> list[str]:
    """Return what the shell proposes for the last of these words."""
    complete = ShellComplete(root, {}, "dispatcher", "_DISPATCHER_COMPLETE")
    return [str(item.value) for item in complete.get_completions(list(words[:-1]), words[-1])]


class TestCompletion:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DISPATCHER__CONFIG", "")
        (tmp_path / "flows.py").write_text(FLOWS)
        (tmp_path / "jobs").mkdir()
        (tmp_path / "notes.txt").touch()
        before = set(sys.modules)
        yield
        assert "flows" not in set(sys.modules) - before, "no file is imported to look for its flows"

    def test_targets_are_files_and_their_flows(self) -> None:
        assert _completed("run", "") == ["flows.py", "jobs/"]
        assert _completed("run", "flows.py:") == [f"flows.py:{name}" for name in ("greet", "breaks", "odd", "leaves")]
        assert _completed("render", "flows.py:gr") == ["flows.py:greet"]

    def test_environments_and_backends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own.toml").write_text('[environments.gpu]\ntype = "local"\n')
        monkeypatch.setenv("DISPATCHER__CONFIG", str(tmp_path / "own.toml"))
        assert _completed("submit", "flows.py:greet", "--on", "gp") == ["gpu"]
        assert "kubernetes" in _completed("worker", "--backend", "ku")

    def test_a_server_that_is_away_completes_nothing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("DISPATCHER__URL", f"unix://{tmp_path}/nobody?db=0")
        assert _completed("show", "") == ["@last"]
        assert _completed("list", "--flow", "") == []
