"""Every code block of README and site does what its page says, and the site fetches nothing from elsewhere."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PYTHON
from tests.docs.blocks import RUN, Block, blocks
from tests.installed_plugin import SOURCE, installed

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")


def _blocks(page: Path) -> list[Block]:
    return list(blocks(page.name, page.read_text(encoding="utf-8")))


@pytest.fixture
def home() -> Iterator[Path]:
    """A user's home with a project in it: short, because a Unix socket will stand below it."""
    home = Path(tempfile.mkdtemp(prefix="dsp-"))
    (home / "project").mkdir()
    for name in TEXTS:
        shutil.copy(ROOT / name, home / "project")
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _environment(home: Path) -> dict[str, str]:
    mine = {
        name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER__", "XDG_", "PYTEST"))
    }
    run = home / "run"
    run.mkdir(mode=0o700)
    path = f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}"
    return {**mine, "HOME": str(home), "XDG_RUNTIME_DIR": str(run), "PATH": path, "PYTHONUNBUFFERED": "1"}


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in PAGES if any(b.runs for b in _blocks(page))], ids=lambda p: p.stem)
def test_a_page_does_what_it_says(page: Path, home: Path) -> None:
    environment = _environment(home)
    if page.stem == "extending":  # it speaks of the distribution in tests/plugin as installed
        environment |= installed().variables
    project = home / "project"
    try:
        done = subprocess.run(
            [PYTHON, "-m", "tests.docs.run_page", str(page)],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        subprocess.run(
            [str(Path(PYTHON).parent / "dispatcher"), "down", "--force"],
            cwd=project,
            env=environment,
            timeout=60,
            check=False,
        )

    sys.stdout.write(done.stdout)
    assert done.returncode == 0, f"the block named last failed:\n{done.stdout[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_one_that_we_know_how_to_treat(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fenced = _blocks(page)

    assert [f"{block.page}:{block.line}" for block in fenced if not block.known] == []
    assert len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) == 2 * len(fenced), "a fence is indented or open"


def test_few_blocks_are_left_out() -> None:
    code = [block for page in PAGES for block in _blocks(page) if block.language in RUN]
    left_out = [block for block in code if not block.runs and not block.on_cluster]

    assert len(code) >= 20
    assert len(left_out) <= len(code) / 4, [f"{block.page}:{block.line} {block.mark}" for block in left_out]


def test_a_failing_block_fails_its_page(home: Path) -> None:
    page = home / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```sh\ntest -d .\n```\n\n```python\nassert x == 2\n```\n")

    done = subprocess.run(
        [PYTHON, "-m", "tests.docs.run_page", str(page)], cwd=home, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "--- page.md:10 "
    assert "assert x == 2" in done.stderr


def test_the_tree_of_errors_is_the_codes() -> None:
    from dispatcher import errors

    drawn = (errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0]
    [block] = [block for block in _blocks(ROOT / "docs" / "errors.md") if block.language == "text"]

    assert block.code.strip() == textwrap.dedent(drawn).strip()


def test_the_storage_of_the_authors_page_is_that_of_the_plugin() -> None:
    [block] = [block for block in _blocks(ROOT / "docs" / "extending.md") if block.title == "storage.py"]
    assert block.code == (SOURCE / "dispatcher_processes" / "storage.py").read_text(encoding="utf-8")


def test_dotted_names_of_ours_can_be_imported() -> None:
    """A name such as ``dispatcher.storage.from_json`` is what a reader will type.

    The others are a task of Celery's, a file, and groups of entry points.
    """
    pages = {page.name: page.read_text(encoding="utf-8") for page in PAGES if page.name != "changelog.md"}
    others = {
        "dispatcher.execute",
        "dispatcher.toml",
        *(f"dispatcher.{group}" for group in ("backends", "secrets", "settings", "storages")),
    }
    missing = []
    for page, text in pages.items():
        for name in set(re.findall(r"`((?:dispatcher|backends)(?:\.[A-Za-z_]\w*)+)[`(]", text)) - others:
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError):
                missing.append(f"{page}: {name}")
    assert missing == []


def test_links_of_the_readme_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (ROOT / link).exists(), f"{page.name} links to {link}"


def test_the_site_builds_without_a_warning_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [PYTHON, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr

    pages = list(tmp_path.rglob("*.html"))
    fetches = re.compile(r"""<(?:script|img|iframe|link|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    assert len(pages) >= len(PAGES) - 1
    for page in pages:
        assert fetches.findall(page.read_text(encoding="utf-8")) == []
    for sheet in tmp_path.rglob("*.css"):
        assert re.findall(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", sheet.read_text(encoding="utf-8")) == []
