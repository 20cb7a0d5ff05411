"""Every row of the fault matrix that the first release owes has a test, which says so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

#: Rows 28 to 30 need a cloud and an operator; 35 needs a release before this one.
OWED = {*range(1, 28), *range(31, 35)}


def rows_in(source: str) -> Iterator[int]:
    """Rows that tests of a module are marked with, by ``pytest.mark.row(n)`` on a function or on the module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(attr="mark"), attr="row"), args=[ast.Constant(int(n))]
            ):
                yield n


def test_every_row_is_shown() -> None:
    shown = {row for path in TESTS.rglob("test_*.py") for row in rows_in(path.read_text(encoding="utf-8"))}
    assert shown >= OWED, f"rows without a test: {sorted(OWED - shown)}"


def test_a_missing_mark_would_be_noticed() -> None:
    assert list(rows_in("@pytest.mark.row(7)\ndef test(): ...\n# pytest.mark.row(8)\n'pytest.mark.row(9)'")) == [7]
