"""Everything that the command prints goes by here, and nothing unescaped. Used by commands alone.

Words come from records, clusters and containers. None of them steers the terminal, begins a line or is taken for
markup: see :mod:`dispatcher.support.escaping`. What a program reads is JSON of ASCII alone.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from dispatcher.support.escaping import IN_LINES, escaped, escaped_lines

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_ASCII = re.compile("[^\x00-\x7e]")


class Painted(NamedTuple):
    """Words in a style: one of rich's, such as ``green`` or ``bold cyan``."""

    text: str
    style: str


Part = str | Painted


def echo(*parts: Part, err: bool = False) -> None:
    """Print one line: its parts, one behind the other. A line end within a part is shown as an escape."""
    _write("".join(_painted(part) for part in parts), err=err)


def echo_lines(text: str, *, err: bool = False) -> None:
    """Print a text of several lines, such as a traceback."""
    _write(escaped_lines(text), err=err)


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    _write(to_json(value, indent=2))


def print_json_line(value: Any) -> None:
    """One JSON document on one line, for streams."""
    _write(to_json(value))


def print_result(value: Any) -> None:
    """A flow's result as JSON that people can read: letters of all alphabets stay, what steers a terminal doesn't."""
    _write(IN_LINES.sub(_in_json, _json(value, indent=2)))


def to_json(value: Any, *, indent: int | None = None) -> str:
    r"""JSON that every parser takes, in ASCII without control characters.

    What JSON can't say is replaced: a lone surrogate by its escape as six characters (``\ud800``), a number that is
    none (NaN) or infinite by null, any other object by its text.
    """
    text = _json(value, indent=indent)
    return text if text.isascii() and "\x7f" not in text else _NOT_ASCII.sub(_in_json, text)


def print_table(head: Sequence[str], rows: Sequence[Sequence[Part]]) -> None:
    """Columns in full width; on a terminal, lines end with the screen."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    cells = [[_text(Painted(name, "bold")) for name in head]]
    cells += [[_text(part) for part in row] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    for row in cells:
        line = Text("  ").join(
            Text.assemble(cell, " " * (width - cell.cell_len)) for cell, width in zip(row, widths, strict=True)
        )
        line.rstrip()
        if console.is_terminal:
            line.truncate(console.width, overflow="ellipsis" if console.encoding.startswith("utf") else "crop")
        console.print(line)


class Screen:
    """A terminal whose last line changes in place, while others scroll by above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = Console(highlight=False, markup=False, emoji=False)
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=self._console, refresh_per_second=10, transient=True, redirect_stderr=sys.stderr.isatty()
        )

    def begin(self) -> None:
        """Show the last line."""
        self._live.start()

    def end(self) -> None:
        """Take it away. Safe to call twice."""
        self._live.stop()

    def line(self, *parts: Part) -> None:
        """Print a line above."""
        from rich.text import Text

        self._console.print(Text.assemble(*(_text(part) for part in parts)))

    def foot(self, *parts: Part) -> None:
        """Set what the last line is to show from now on."""
        from rich.console import Group
        from rich.text import Text

        self._spinner.update(text=Text.assemble(*(_text(part) for part in parts)))
        self._live.update(Group(Text(""), self._spinner))

    def rows(self, rows: Sequence[tuple[Part, Part, Part, Part]]) -> None:
        """Print a timeline: when, since the row before, what, and a note, which is folded where it is long."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="dim")
        table.add_column(style="dim", justify="right")
        table.add_column()
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*(_text(part) for part in row))
        self._console.print(table)


def _write(text: str, *, err: bool = False) -> None:
    stream = sys.stderr if err else sys.stdout
    click.echo(_carried(text, stream), err=err)


def _carried(text: str, stream: Any) -> str:
    """The text, with escapes for what the stream's encoding hasn't."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def _painted(part: Part) -> str:
    if isinstance(part, str):
        return escaped(part)
    *_, color = part.style.split() or [""]
    return click.style(escaped(part.text), fg=color or None)


def _text(part: Part) -> Any:
    """A cell or a stretch of a line, for rich: tabs, whose width nobody knows, are spaces."""
    from rich.text import Text

    text, style = (part, "") if isinstance(part, str) else part
    return Text(_carried(escaped(str(text)).replace("\t", " "), sys.stdout), style=style)


def _json(value: Any, *, indent: int | None) -> str:
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, default=str)
    return _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text)


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON hasn't."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _in_json(match: re.Match[str]) -> str:
    """A character as JSON writes it in ASCII."""
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"
