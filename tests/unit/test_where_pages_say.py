"""Functions by which values come back from their JSON are where the pages say, after ``import dispatcher`` alone."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dispatcher import LocalEnvironment, ModuleStorage, environments, storage
from dispatcher.environments import Environment
from dispatcher.storage import Storage
from tests.integration.workers import ROOT

NAMES = {
    name
    for page in (ROOT / "docs").glob("*.md")
    for name in re.findall(r"\bdispatcher\.\w+\.from_json\b", page.read_text())
}


def test_pages_name_them() -> None:
    assert {"dispatcher.storage.from_json", "dispatcher.environments.from_json"} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_function_is_where_its_page_says(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"import dispatcher; {name}"], check=True, timeout=60)


def test_both_kinds_come_back() -> None:
    environment, module = LocalEnvironment(labels=["eu"]), ModuleStorage()
    assert environments.from_json(environment.to_json()) == Environment.from_json(environment.to_json()) == environment
    assert storage.from_json(module.to_json()) == Storage.from_json(module.to_json()) == module
