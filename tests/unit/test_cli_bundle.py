"""``dispatcher bundle``: each file, its size and why it is in, and what was left out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.code.projects import write

FILES = {
    "etl.py": "import pkg\nfrom dispatcher import flow\n"
    "@flow(include=['docs', 'docs/*.txt'], exclude=['*.bin'])\ndef run(): pass\n",
    "script.py": "from dispatcher import flow\n@flow\ndef run(): pass\n",
    "pkg/__init__.py": "x = 1\n",
    "pkg/words.csv": "a,b\n",
    "pkg/model.bin": "1",
    "pkg/.env": "SECRET=1",
    "sizes.csv": "1\n",
    "docs/notes.md": "# Notes\n",
    "pyproject.toml": "[tool.dispatcher]\nexclude = ['*.parquet']\n",
    "pkg/words.txt": f"-----BEGIN PRIVATE KEY-----\n{'MIIEvQIBADANBgkq' * 8}\n-----END PRIVATE KEY-----\n",
}


def shown(project: Path, *arguments: str) -> str:
    """Run the command in a project."""
    done = subprocess.run(
        [sys.executable, "-c", "from dispatcher.cli.root import root; root()", "bundle", *arguments],
        cwd=project, text=True, capture_output=True, timeout=60, check=False, env={**os.environ, "COLUMNS": "300"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path / "project", FILES)


def test_it_says_what_is_in_and_why_and_what_is_left_out(project: Path) -> None:
    lines = [re.sub(r"\s{2,}", "  ", line).strip() for line in shown(project, "etl:run").splitlines()]
    for line in (
        f"{project}/etl.py  {len(FILES['etl.py'])}  module etl",
        f"{project}/pkg/__init__.py  6  package pkg",
        f"{project}/pkg/words.csv  4  package pkg",
        f"{project}/sizes.csv  2  data beside module etl",
        f"{project}/docs/notes.md  8  included by name",
        f"{project}/pkg/.env  hidden",
        f"{project}/pkg/model.bin  excluded by name",
        f"{project}/pkg/words.txt  holds a private key",
        f"{project}/pyproject.toml  describes the project",
        "include docs/*.txt  @flow  matches no file of the project that may travel",
        f"exclude *.parquet  {project}/pyproject.toml  matches nothing that would travel",
    ):
        assert line in lines, lines
    assert re.fullmatch(r"5 files, \d+ bytes, packed [\d,]+; digest [0-9a-f]{64}", lines[-1])
    assert "SECRET" not in "".join(lines)


def test_it_says_the_same_as_json(project: Path) -> None:
    made = json.loads(shown(project, "etl:run", "--json"))
    files = {Path(file["path"]).name: (file["bytes"], file["why"]) for file in made["files"]}
    assert files["words.csv"] == (4, "package pkg")
    left_out = {Path(left["path"]).name: left["why"] for left in made["left_out"]}
    left_out.pop("__pycache__", None)  # of the command before, unless Python writes no bytecode
    assert left_out == {
        ".env": "hidden",
        "model.bin": "excluded by name",
        "words.txt": "holds a private key",
        "pyproject.toml": "describes the project",
    }
    assert [(each["of"], each["pattern"]) for each in made["unmatched"]] == [
        (str(project / "pyproject.toml"), "*.parquet"),
        ("@flow", "docs/*.txt"),
    ]
    assert made["modules"] == ["etl", "pkg"]
    assert made["digest"] in shown(project, "etl:run")


def test_a_flow_that_needs_no_file_says_so(project: Path) -> None:
    write(project, {"script.py": FILES["script.py"]})
    assert "script" in shown(project, "script:run")
    write(project, {"made.py": "import json\nfrom dispatcher import flow\nrun = flow(json.dumps)\n"})
    assert "needs no file of a project" in shown(project, "made:run")
