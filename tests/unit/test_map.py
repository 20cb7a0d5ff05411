"""The map of the architecture page: every folder is on it, and every file that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = {
    str(path.parent.relative_to(ROOT))
    for package in ("dispatcher", "backends", "workers")
    for path in (ROOT / package).rglob("__init__.py")
} - {"dispatcher"}


def test_each_folder_has_a_row() -> None:
    rows = re.findall(r"^\| `([a-z_/]+)` \| .+ \| `([a-z_/]+\.py)` \|$", PAGE, flags=re.MULTILINE)
    assert {folder for folder, _ in rows} == FOLDERS
    assert [file for folder, file in rows if str(Path(file).parent) != folder] == []


def test_each_file_is_there() -> None:
    named = set(re.findall(r"`((?:dispatcher|backends|workers)/[\w/]+\.(?:py|lua))`", PAGE))
    assert len(named) > len(FOLDERS)
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
