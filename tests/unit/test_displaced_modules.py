"""A module of the user's in the place of one that we import is named by the error; an error of ours stays itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.workers import ROOT
from tests.unit.code.projects import write

PROGRAM = "from dispatcher import Dispatcher\n"


def last_line(directory: Path, files: dict[str, str], program: str = "main.py") -> str:
    """Run a program that fails, and return its error."""
    write(directory, files)
    done = subprocess.run(
        [sys.executable, program], cwd=directory, env={"PYTHONPATH": str(ROOT)}, text=True, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "source", "kind", "cause"),
    [
        ("secrets.py", "PASSWORD = 1", "the standard library's module 'secrets'", "has no attribute"),
        ("random.py", "SEED = 1", "the standard library's module 'random'", "cannot import name"),
        ("json.py", "def broken(:", "the standard library's module 'json'", "invalid syntax"),
        ("uuid.py", "raise KeyError('mine')", "the standard library's module 'uuid'", "mine"),
        ("logging/__init__.py", "", "the standard library's module 'logging'", "has no attribute"),
        ("typing_extensions.py", "", "the installed package 'typing_extensions'", "cannot import name"),
    ],
)
def test_the_file_and_the_remedy_are_named(tmp_path: Path, file: str, source: str, kind: str, cause: str) -> None:
    error = last_line(tmp_path, {"main.py": PROGRAM, file: source})
    assert error.startswith(f"ImportError: Python finds {tmp_path / file} in place of {kind}: rename yours, or keep")
    assert cause in error


def test_a_script_that_has_such_a_name_itself(tmp_path: Path) -> None:
    error = last_line(tmp_path, {"secrets.py": "from dispatcher import Dispatcher, flow\n"}, "secrets.py")
    assert f"Python finds {tmp_path / 'secrets.py'} in place of" in error


@pytest.mark.parametrize(
    ("before", "error"),
    [
        ("import sys; sys.modules['dispatcher.client.session'] = None", "ModuleNotFoundError: import of dispatcher."),
        ("import typing; del typing.Protocol", "ImportError: cannot import name 'Protocol' from 'typing'"),
        ("import logging; del logging.getLogger", "ImportError: dispatcher.client.client can't be imported: module "),
    ],
)
def test_another_error_stays_itself(tmp_path: Path, before: str, error: str) -> None:
    write(tmp_path, {"uuid_of_mine.py": "", "test.py": ""})
    assert last_line(tmp_path, {"main.py": f"{before}\n{PROGRAM}"}).startswith(error)
