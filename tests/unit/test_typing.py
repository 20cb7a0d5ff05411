"""Type checkers on a user's program: they report each mistake on its line, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("typed_program.py")


def wrong_lines() -> set[int]:
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def run(*command: str, folder: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy that isn't excluded by the project's own settings."""
    copied = tmp_path / "program.py"
    copied.write_bytes(PROGRAM.read_bytes())
    return copied


def test_mypy(program: Path) -> None:
    settings = program.with_name("mypy.ini")
    settings.write_text("[mypy]\nstrict = true\n", encoding="utf-8")
    output = run("mypy", "--config-file", str(settings), "--no-incremental", program.name, folder=program.parent)
    reported = {int(line) for line in re.findall(r"^program\.py:(\d+): error", output, re.MULTILINE)}
    assert reported == wrong_lines(), output


def test_pyright(program: Path) -> None:
    settings = {"typeCheckingMode": "standard", "include": [program.name], "pythonVersion": "3.11"}
    program.with_name("pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    output = run("basedpyright", "--outputjson", "--pythonpath", sys.executable, folder=program.parent)
    errors = [each for each in json.loads(output)["generalDiagnostics"] if each["severity"] == "error"]
    assert {each["range"]["start"]["line"] + 1 for each in errors} == wrong_lines(), errors
