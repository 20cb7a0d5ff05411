"""The settings page matches the code."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field

from tools import settings_table


def test_the_page_is_current() -> None:
    text = settings_table.PAGE.read_text(encoding="utf-8")

    assert settings_table.page(text) == text, "run: .venv/bin/python -m tools.settings_table"


def test_a_changed_setting_changes_the_page() -> None:
    text = settings_table.PAGE.read_text(encoding="utf-8").replace("`DISPATCHER__WORKER__DRAIN` | `30`", "gone")

    assert settings_table.page(text) != text


class _Inner(BaseModel):
    size: int = Field(2**20, gt=0, description="Most bytes | of it.")


class _Outer(BaseModel):
    names: frozenset[str] = Field(frozenset({"b", "a"}), description="Names.")
    wait: float | None = Field(None, ge=1, description="Seconds.")
    inner: _Inner = Field(default_factory=_Inner, description="The inner one.")


@pytest.mark.parametrize(
    "line",
    [
        '| `X__NAMES` | `["a", "b"]` | Names. |',
        "| `X__WAIT` | none | Seconds (≥ 1). |",
        "## The inner one",
        "| `X__INNER__SIZE` | `1048576` (1 MiB) | Most bytes \\| of it (> 0). |",
    ],
)
def test_what_a_line_says(line: str) -> None:
    assert line in settings_table.table(_Outer, "X__").splitlines()
