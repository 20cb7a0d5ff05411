"""Output of the command line: every printed text goes through here, escaped. Used by commands only.

Text from records, clusters and containers can't send control sequences, forge a line or act as markup: see
:mod:`dispatcher.support.escaping`. JSON for programs is pure ASCII.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dispatcher.support.escaping import IN_LINES, escaped, escaped_lines

if TYPE_CHECKING:
    from rich.console import Console, OverflowMethod
    from rich.text import Text

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_ASCII = re.compile("[^\x00-\x7e]")


class Painted(NamedTuple):
    """Text in a style of rich, such as ``green`` or ``bold cyan``."""

    text: str
    style: str


Part = str | Painted


def echo(*parts: Part, err: bool = False) -> None:
    """Print the parts as one line. A line end within a part is shown as an escape."""
    _write("".join(_painted(part) for part in parts), err=err)


def echo_lines(text: str, *, err: bool = False) -> None:
    """Print a text of several lines, such as a traceback."""
    _write(escaped_lines(text), err=err)


def print_json(value: Any) -> None:
    """Print a JSON document, indented."""
    _write(to_json(value, indent=2))


def print_json_line(value: Any) -> None:
    """Print a JSON document on one line, for streams."""
    _write(to_json(value))


def print_result(value: Any) -> None:
    """Print a flow's result as JSON for people: letters of all alphabets stay, control characters are escaped."""
    _write(IN_LINES.sub(_escape_json, _json(value, indent=2)))


def to_json(value: Any, *, indent: int | None = None) -> str:
    r"""Return JSON that every parser accepts, in ASCII without control characters.

    Values that JSON can't express are replaced: a lone surrogate by its escape as six characters (``\ud800``), NaN and
    infinity by null, any other object by its text.
    """
    text = _json(value, indent=indent)
    return text if text.isascii() and "\x7f" not in text else _NOT_ASCII.sub(_escape_json, text)


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[Part]], *, cut: int | None = None, least_last: int = 0
) -> None:
    """Print aligned columns. On a terminal, lines are truncated to its width.

    Args:
        head: names of the columns.
        rows: their cells.
        cut: the column whose cells are cut in the middle first, so that the last one has room.
        least_last: columns of the terminal for the last one, if its cells are that long.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    cells = [[_text(Painted(name, "bold")) for name in head]]
    cells += [[_text(part) for part in row] for row in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
    if cut is not None and console.is_terminal:
        others = sum(widths) - widths[cut] - widths[-1] + 2 * (len(widths) - 1)
        widths[cut] = min(widths[cut], max(_LEAST_CUT, console.width - others - min(widths[-1], least_last)))
        for row in cells:
            row[cut] = _cut(row[cut], widths[cut], console)
    for row in cells:
        line = Text("  ").join(
            Text.assemble(cell, " " * (width - cell.cell_len)) for cell, width in zip(row, widths, strict=True)
        )
        line.rstrip()
        if console.is_terminal:
            line.truncate(console.width, overflow=_overflow(console))
        console.print(line)


#: Columns that are left of a cell at least, however narrow the terminal is.
_LEAST_CUT = 8


def _cut(cell: Text, width: int, console: Console) -> Text:
    """Return a cell that is at most so wide, cut in its middle: ends of names tell them apart, too."""
    if cell.cell_len <= width:
        return cell
    mark = "…" if console.encoding.startswith("utf") else "~"
    head, tail = cell.copy(), cell.copy()
    head.truncate(width - width // 2 - 1)
    while tail.cell_len > width // 2:
        tail = tail[1:]
    return head.append(mark).append_text(tail)


#: Columns of the spinner, of the space behind it, and of the cursor.
_SPINNER_WIDTH = 3


def _overflow(console: Console) -> OverflowMethod:
    return "ellipsis" if console.encoding.startswith("utf") else "crop"


class Screen:
    """A terminal whose last line is updated in place, while log lines scroll above it."""

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
        """Start to show the last line."""
        self._live.start()

    def end(self) -> None:
        """Remove the last line. Safe to call twice."""
        self._live.stop()

    def line(self, *parts: Part) -> None:
        """Print a line above it."""
        from rich.text import Text

        self._console.print(Text.assemble(*(_text(part) for part in parts)))

    def foot(self, *parts: Part) -> None:
        """Update the last line. It is truncated to the terminal's width."""
        from rich.console import Group
        from rich.text import Text

        text = Text.assemble(*(_text(part) for part in parts))
        text.truncate(max(1, self._console.width - _SPINNER_WIDTH), overflow=_overflow(self._console))
        self._spinner.update(text=text)
        self._live.update(Group(Text(""), self._spinner))

    def rows(self, rows: Sequence[tuple[Part, Part, Part, Part]]) -> None:
        """Print a timeline: time, duration since the previous row, name, and a note, which is folded if it is long."""
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
    click.echo(_encodable(text, stream), err=err)


def _encodable(text: str, stream: Any) -> str:
    """Escape the characters that the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def _painted(part: Part) -> str:
    if isinstance(part, str):
        return escaped(part)
    *_, color = part.style.split() or [""]
    return click.style(escaped(part.text), fg=color or None)


def _text(part: Part) -> Any:
    """Return a cell or a part of a line for rich. Tabs, which have no fixed width, become spaces."""
    from rich.text import Text

    text, style = (part, "") if isinstance(part, str) else part
    return Text(_encodable(escaped(str(text)).replace("\t", " "), sys.stdout), style=style)


def _json(value: Any, *, indent: int | None) -> str:
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, default=str)
    return _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _escape_json(match: re.Match[str]) -> str:
    """Return a character as JSON writes it in ASCII."""
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"
