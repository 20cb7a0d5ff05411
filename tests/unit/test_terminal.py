"""Words of others on their way to a terminal, to JSON and to a log: nothing of them acts."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dispatcher.cli
from dispatcher.cli import terminal
from dispatcher.cli.terminal import Painted
from dispatcher.cli.views import LiveView
from dispatcher.records.logs import Line
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.states import State
from dispatcher.support.escaping import encodable, escaped, escaped_lines
from tests.steering import STEERING, steers

HOSTILE = "".join(STEERING.values())


class TestEscaping:
    @pytest.mark.parametrize("name", STEERING)
    def test_what_steers_is_shown_as_an_escape(self, name: str) -> None:
        shown = escaped(f"a{STEERING[name]}b")
        assert not steers(shown)
        assert shown.startswith("a\\")

    @given(st.text())
    def test_nothing_steers_whatever_it_is(self, text: str) -> None:
        assert not steers(escaped(text))
        assert "\n" not in escaped(text)
        assert not steers(escaped_lines(text))
        assert escaped_lines(text).count("\n") == text.count("\n")

    @pytest.mark.parametrize(
        "text", ["", "plain\ttext", "Grüße, 日本語, עברית", "👩\u200d🚀", r"C:\new", "[red]x[/red]"]
    )
    def test_all_else_stays(self, text: str) -> None:
        assert escaped(text) == escaped_lines(text) == text

    def test_only_lone_surrogates_cannot_be_encoded(self) -> None:
        assert encodable("é\ud800\x1b") == "é\\ud800\x1b"


class TestTerminal:
    def test_a_line_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.echo("why: ", f"a\nFAKE  SUCCEEDED{HOSTILE}", err=True)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert not steers(captured.err)

    def test_lines_stay_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.echo_lines(f"Traceback:\n  x{HOSTILE}")
        out = capsys.readouterr().out
        assert out.startswith("Traceback:\n  x")
        assert not steers(out)

    def test_styles_are_ours_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = _Terminal(monkeypatch)
        terminal.echo(Painted("\x1b[31mFAILED", "bold red"), " \x1b[32mfine")
        assert screen.getvalue() == "\x1b[31m\\x1b[31mFAILED\x1b[0m \\x1b[32mfine\n"

    def test_a_stream_that_knows_few_letters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
        terminal.echo("→ Grüße")
        terminal.print_table(["É"], [["日"]])
        sys.stdout.flush()
        assert raw.getvalue() == b"\\u2192 Gr\\xfc\\xdfe\n\\xc9\n\\u65e5\n"

    def test_a_table_keeps_its_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.print_table(["FLOW", "WHY"], [["[red]a[/red]", f"x\n\tRUN{HOSTILE}"], ["b", Painted("y", "green")]])
        out = capsys.readouterr().out
        assert len(out.splitlines()) == 3
        assert "[red]a[/red]" in out, "words are no markup"
        assert not steers(out)

    def test_a_live_view_shows_words_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = _Terminal(monkeypatch)
        view = LiveView()
        view.begin(f"run [red]r1[/red] {HOSTILE}")
        view.line(Line(attempt=1, number=1, time=0.0, stream="stdout", text=f"[b]said[/b] {HOSTILE}"))
        view.note(f"note {HOSTILE}")
        view.close()
        shown = screen.getvalue()
        assert "[red]r1[/red]" in shown
        assert "[b]said[/b]" in shown
        assert "\x1b]0" not in shown
        assert "\\x1b]0;title" in shown
        assert not steers(shown.replace("\x1b", "").replace("\r", "")), "its own steps and colours apart"

    def test_a_live_view_shows_why_a_queued_run_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = _Terminal(monkeypatch)
        view = LiveView()
        view.begin("run r1")
        view.waiting("no live worker serves backend 'kubernetes'")
        view.tick()
        view.close()
        assert "no live worker serves backend 'kubernetes'" in screen.getvalue()

    def test_the_last_line_of_a_live_view_stays_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = _Terminal(monkeypatch)
        monkeypatch.setenv("COLUMNS", "80")
        view = LiveView()
        view.begin("run r1")
        view.waiting("no node has room " * 100)
        view.tick()
        view.close()
        assert 0 < screen.getvalue().count("no node has room") < 5

    def test_a_live_view_shows_why_a_run_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = _Terminal(monkeypatch)
        view = LiveView()
        view.begin("run r1")
        facts = {"reason": "ErrImagePull", "message": f"no such image {HOSTILE}"}
        for kind, data in ((EventKind.PENDING, {}), (EventKind.WAITING, facts)):
            view.event(Event(run_id="r1", attempt=1, kind=kind, state=State.PENDING, time=1.0, data=data))
        view.close()
        shown = screen.getvalue()
        assert "pending  ErrImagePull: no such image" in shown
        assert not steers(shown.replace("\x1b", "").replace("\r", "")), "its own steps and colours apart"


class TestJson:
    @given(
        st.recursive(
            st.none() | st.text() | st.floats() | st.integers(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    )
    def test_every_value_gives_ascii_that_strict_parsers_take(self, value: object) -> None:
        for text in (terminal.to_json(value), terminal.to_json(value, indent=2)):
            assert text.isascii()
            assert not steers(text)
            json.dumps(json.loads(text, parse_constant=_refuse)).encode()

    def test_a_lone_surrogate_becomes_text(self) -> None:
        text = terminal.to_json({"why": "a\ud800b", "face": "😀"})
        assert json.loads(text) == {"why": "a\\ud800b", "face": "😀"}
        json.loads(text)["why"].encode()

    def test_a_result_stays_readable(self, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.print_result({"said": f"Grüße {HOSTILE}"})
        out = capsys.readouterr().out
        assert "Grüße" in out
        assert not steers(out)
        assert json.loads(out)["said"] == f"Grüße {HOSTILE}".replace("\ud800", "\\ud800")


#: What prints, by the module or the object it belongs to.
PRINTS = {
    "click": {"echo", "secho", "style", "prompt", "confirm", "echo_via_pager", "progressbar", "get_text_stream",
              "get_binary_stream", "edit", "clear", "pause"},
    "os": {"write", "writev"},
    "traceback": {"print_exc", "print_exception", "print_stack", "print_tb", "print_last"},
    "stdout": {"write", "writelines", "buffer"},
    "stderr": {"write", "writelines", "buffer"},
    "__stdout__": {"write", "writelines", "buffer"},
    "__stderr__": {"write", "writelines", "buffer"},
}  # fmt: skip
FOLDER = Path(dispatcher.cli.__file__).parent


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_one_module_prints(file: Path) -> None:
    prints = list(_printing(ast.parse(file.read_text())))
    if file.name == "terminal.py":
        assert prints, "this test must be able to fail"
    else:
        assert not prints, f"{file.name} prints by itself, and not through terminal.py"


def _printing(tree: ast.AST) -> list[str]:
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in {"print", "pprint"}:
            places.append(f"line {node.lineno}: {node.id}")
        elif isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if node.attr in PRINTS.get(name, ()):
                places.append(f"line {node.lineno}: {name}.{node.attr}")
        elif isinstance(node, ast.Import) and any(alias.name.partition(".")[0] == "rich" for alias in node.names):
            places.append(f"line {node.lineno}: rich")
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").partition(".")[0]
            if module == "rich" or any(alias.name in PRINTS.get(module, ()) for alias in node.names):
                places.append(f"line {node.lineno}: {node.module}")
    return places


class _Terminal(io.StringIO):
    """A terminal that shows colours, in the place of standard output."""

    encoding = "utf-8"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(sys, "stdout", self)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.delenv("NO_COLOR", raising=False)

    def isatty(self) -> bool:
        return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
