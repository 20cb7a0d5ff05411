"""The map of the architecture page: every folder is on it, and every file that it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("dispatcher", "backends", "workers")
FOLDERS = {
    str(path.parent.relative_to(ROOT))
    for package in PACKAGES
    for path in (ROOT / package).rglob("*")
    if path.suffix in {".py", ".lua"}
} - {"dispatcher"}


def test_each_folder_has_a_row() -> None:
    rows = re.findall(r"^\| `([a-z0-9_/]+)` \| .+ \| `([a-z0-9_/]+\.(?:py|lua))` \|$", PAGE, flags=re.MULTILINE)
    assert {folder for folder, _ in rows} == FOLDERS
    assert [file for folder, file in rows if str(Path(file).parent) != folder] == []


def test_the_map_is_what_import_linter_enforces() -> None:
    """Names on one line know nothing of each other, which is what ``|`` stands for."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    for package, drawn in _map().items():
        [layers] = [contract["layers"] for contract in contracts if contract.get("containers") == [package]]
        shown = {name for line in drawn for name in line}
        enforced = [sorted(name for name in layer.split(" | ") if name in shown) for layer in layers]
        assert drawn == [names for names in enforced if names]
        assert {Path(folder).name for folder in FOLDERS if Path(folder).parent == Path(package)} <= shown


def _map() -> dict[str, list[list[str]]]:
    """Return the lines of each package, from the top."""
    drawing = PAGE.partition("## The map\n\n```text\n")[2].partition("```")[0]
    lines: dict[str, list[list[str]]] = {}
    for line in drawing.splitlines():
        package, names = line[:13].strip(), sorted(line[13:].split(" · "))
        lines.setdefault(package or list(lines)[-1], []).append(names)
    return lines


def test_each_file_is_there() -> None:
    named = set(re.findall(r"`((?:dispatcher|backends|workers)/[\w/]+\.(?:py|lua))`", PAGE))
    assert len(named) > len(FOLDERS)
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
