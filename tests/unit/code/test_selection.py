"""A bundle holds what a person expects: modules that are reached, whole packages, data beside them, nothing private."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.code.bundles import Bundler
from dispatcher.code.cache import BundleCache
from dispatcher.code.chosen import Selection
from dispatcher.code.exclusions import Exclusions
from dispatcher.code.patterns import Patterns
from dispatcher.code.selection import select
from dispatcher.errors import InvalidInput
from tests.unit.code.projects import on_path, write

PACKAGE = {
    "pkg/__init__.py": "from .core import run\n",
    "pkg/core.py": "def run():\n    from .sub import lazy\n    import helper\n",
    "pkg/sub/__init__.py": "",
    "pkg/sub/lazy.py": "Z = 5\n",
    "pkg/data/words.txt": "words",
    "helper.py": "import other\n",
    "other.py": "",
    "unrelated.py": "",
}


def names(selection: Selection | None) -> list[str]:
    assert selection is not None
    return [file.name for file in selection.files]


def reasons(selection: Selection | None) -> dict[str, str]:
    assert selection is not None
    return {Path(left_out.path).name: left_out.reason for left_out in selection.left_out}


def test_what_is_reached_comes_along_and_nothing_else(tmp_path: Path) -> None:
    with on_path(write(tmp_path, PACKAGE)):
        selection = select(["pkg.core"])
    assert names(selection) == [
        "0/helper.py",
        "0/other.py",
        "0/pkg/__init__.py",
        "0/pkg/core.py",
        "0/pkg/data/words.txt",
        "0/pkg/sub/__init__.py",
        "0/pkg/sub/lazy.py",
    ]
    assert selection is not None
    assert selection.paths == ("0",)
    assert selection.modules == {"pkg", "helper", "other"}


def test_modules_that_import_each_other(tmp_path: Path) -> None:
    with on_path(write(tmp_path, {"a.py": "import b", "b.py": "import a"})):
        assert names(select(["a"])) == ["0/a.py", "0/b.py"]


def test_data_files_beside_a_module(tmp_path: Path) -> None:
    files = {"helper.py": "", "data.csv": "1", "more/deep.csv": "2", "script.py": "", "sub/mod.py": ""}
    with on_path(write(tmp_path, files)):
        assert names(select(["helper"])) == ["0/data.csv", "0/helper.py"]


def test_what_is_installed_or_not_there_is_passed_over() -> None:
    assert select(["json", "pytest", "no_such_module", "dispatcher.flows", "__main__", "sys"]) is None


def test_a_source_layout_keeps_its_place_in_the_project(tmp_path: Path) -> None:
    files = {"pyproject.toml": "", "src/pkg/__init__.py": "", "src/pkg/a.py": ""}
    with on_path(write(tmp_path, files) / "src"):
        selection = select(["pkg.a"])
    assert names(selection) == ["0/src/pkg/__init__.py", "0/src/pkg/a.py"]
    assert selection is not None
    assert selection.paths == ("0/src",)


def test_two_projects_stay_apart(tmp_path: Path) -> None:
    left = write(tmp_path / "left", {"a.py": "import b", "data.txt": "left"})
    right = write(tmp_path / "right", {"b.py": "", "data.txt": "right"})
    with on_path(left, right):
        selection = select(["a"])
    assert names(selection) == ["0/a.py", "0/data.txt", "1/b.py", "1/data.txt"]
    assert selection is not None
    assert selection.paths == ("0", "1")


def test_of_a_namespace_package_only_what_is_reached(tmp_path: Path) -> None:
    files = {
        "ns/one/__init__.py": "",
        "ns/one/mod.py": "import ns.two.mod",
        "ns/two/mod.py": "",
        "ns/three/mod.py": "",
    }
    with on_path(write(tmp_path, files)):
        assert names(select(["ns.one.mod"])) == ["0/ns/one/__init__.py", "0/ns/one/mod.py", "0/ns/two/mod.py"]


PRIVATE = {
    ".env": "PASSWORD=1",
    ".env.local": "PASSWORD=1",
    "server.pem": "key",
    "tls.key": "key",
    "id_rsa": "key",
    "id_ed25519": "key",
    "credentials.json": "{}",
    "dispatcher.toml": "",
    "dump.rdb": "",
    "appendonlydir/base.aof": "",
    ".git/config": "",
    ".hg/store": "",
    ".ipynb_checkpoints/a.py": "",
    ".mypy_cache/a.json": "",
    "__pycache__/a.pyc": "",
    "node_modules/a.js": "",
    "env/pyvenv.cfg": "",
    "env/lib/a.py": "",
    "pkg.egg-info/PKG-INFO": "",
    "old.pyc": "",
}


def test_nothing_private_and_no_cache(tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "", "pkg/a.py": "", **{f"pkg/{name}": content for name, content in PRIVATE.items()}}
    with on_path(write(tmp_path, files)):
        selection = select(["pkg"])
    assert names(selection) == ["0/pkg/__init__.py", "0/pkg/a.py"]
    shown = reasons(selection)
    assert {Path(name).parts[0] for name in PRIVATE} == set(shown)
    assert shown["env"] == "a virtual environment"
    assert shown["id_rsa"] == "may hold a private key"


@pytest.mark.parametrize("include", [(), ("keys.txt", "pkg/state", "*")])
def test_files_of_this_machine_that_are_named(tmp_path: Path, include: tuple[str, ...]) -> None:
    files = {"pkg/__init__.py": "", "pkg/keys.txt": "secret", "pkg/state/data": "1"}
    private = Exclusions(frozenset({tmp_path / "pkg/keys.txt", tmp_path / "pkg/state"}))
    with on_path(write(tmp_path, files)):
        selection = select(["pkg"], exclusions=private, patterns=Patterns(include=include))
    assert names(selection) == ["0/pkg/__init__.py"]
    assert reasons(selection) == {"keys.txt": "private to this machine", "state": "private to this machine"}


def test_signing_keys_are_known_by_their_content(tmp_path: Path) -> None:
    exclusions = Exclusions()
    for content in (b'{"k0123abcd": "0123456789abcdef0"}', b'{"team": {"secret": "0123456789abcdef"}}'):
        assert exclusions.content(content) == "holds signing keys"
    for content in (b'{"k": 1}', b"[1]", b"{", b'{"name": "a long sentence of more than 16"}', b"[" * 60000):
        assert exclusions.content(content) is None


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    secret = write(tmp_path, {"outside/secret.txt": "1"}) / "outside/secret.txt"
    project = write(tmp_path / "project", {"pkg/__init__.py": "", "pkg/real.txt": "1", "pyproject.toml": ""})
    (project / "pkg/out.txt").symlink_to(secret)
    (project / "pkg/out").symlink_to(secret.parent)
    (project / "pkg/in.txt").symlink_to("real.txt")
    (project / "pkg/loop.txt").symlink_to("loop.txt")
    with on_path(project):
        selection = select(["pkg"])
    assert names(selection) == ["0/pkg/__init__.py", "0/pkg/in.txt", "0/pkg/real.txt"]
    assert set(reasons(selection)) == {"out.txt", "out", "loop.txt"}


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(write(tmp_path, {"pkg/__init__.py": ""}) / "pkg/pipe")
    with on_path(tmp_path):
        assert names(select(["pkg"])) == ["0/pkg/__init__.py"]


def test_patterns_add_and_take_away(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": "[tool.dispatcher]\ninclude = ['config/*.yaml']\nexclude = ['big.bin']\n",
        "pkg/__init__.py": "",
        "pkg/big.bin": "1",
        "pkg/tests/test_a.py": "",
        "pkg/.hidden": "1",
        "config/a.yaml": "",
        "config/b.json": "",
    }
    with on_path(write(tmp_path, files)):
        selection = select(["pkg"], patterns=Patterns(include=("pkg/.hidden",), exclude=("pkg/tests",)))
    assert names(selection) == ["0/config/a.yaml", "0/pkg/.hidden", "0/pkg/__init__.py"]
    assert reasons(selection) == {"big.bin": "excluded by name", "tests": "excluded by name"}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("include = 'x'", "must be a list"),
        ("include = [1]", "must be patterns"),
        ("include = ['/etc/passwd']", "leads out of the project"),
        ("exclude = ['../x']", "leads out of the project"),
        ("includes = []", "unknown 'includes'"),
        ("include = [", "can't be read"),
    ],
)
def test_a_mistake_in_pyproject_names_file_and_field(tmp_path: Path, table: str, words: str) -> None:
    files = {"pyproject.toml": f"[tool.dispatcher]\n{table}\n", "a.py": ""}
    with on_path(write(tmp_path, files)), pytest.raises(InvalidInput, match=words) as error:
        select(["a"])
    assert str(tmp_path / "pyproject.toml") in str(error.value)


def test_it_is_current_until_something_changes(tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "", "pkg/a.py": "x = 1", "pyproject.toml": ""}
    with on_path(write(tmp_path, files)):
        changes: list[Callable[[], object]] = [
            lambda: (tmp_path / "pkg/a.py").write_text("x = 22"),
            lambda: (tmp_path / "pkg/new.txt").write_text("1"),
            (tmp_path / "pkg/new.txt").unlink,
            lambda: (tmp_path / "pyproject.toml").write_text("[tool.dispatcher]\nexclude = ['a.py']"),
        ]
        for change in changes:
            selection = select(["pkg"])
            assert selection is not None
            assert selection.is_current()
            change()
            assert not selection.is_current()


def test_secrets_stay_out_in_capitals_and_behind_links(tmp_path: Path) -> None:
    write(tmp_path, {"pkg/__init__.py": "", "pkg/SERVER.PEM": "x", "pkg/.env": "x", "pkg/words.txt": "x"})
    (tmp_path / "pkg" / "linked.txt").symlink_to(".env")
    (tmp_path / "pkg" / "other.txt").symlink_to("words.txt")
    with on_path(tmp_path):
        selection = select(["pkg"])
    assert selection is not None
    assert {Path(file.path).name for file in selection.files} == {"__init__.py", "words.txt", "other.txt"}


def test_what_describes_the_project_is_no_data_beside_a_module(tmp_path: Path) -> None:
    described = {
        "pyproject.toml", "setup.cfg", "Makefile", "README.md", "LICENSE", "uv.lock", "package-lock.json", "Dockerfile",
        "docker-compose.yml", "requirements-dev.txt", "CHANGELOG.rst", "tox.ini", "Jenkinsfile",
    }  # fmt: skip
    data = {"changes.csv", "notice.csv", "readme.csv", "compose.csv", "settings.toml", "words.txt"}
    with on_path(write(tmp_path, {"helper.py": "", **dict.fromkeys(described | data, "")})):
        selection = select(["helper"])
        assert {Path(name).name for name in names(selection)} == {"helper.py", *data}
        assert reasons(selection) == dict.fromkeys(described, "describes the project")
        named = select(["helper"], patterns=Patterns(include=("pyproject.toml",)))
        assert "0/pyproject.toml" in names(named)
        assert "pyproject.toml" not in reasons(named)


def test_what_describes_a_package_is_its_data(tmp_path: Path) -> None:
    with on_path(write(tmp_path, {"pkg/__init__.py": "", "pkg/README.md": "", "pkg/Makefile": ""})):
        assert names(select(["pkg"])) == ["0/pkg/Makefile", "0/pkg/README.md", "0/pkg/__init__.py"]


def test_a_pattern_leads_into_a_hidden_directory(tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "", "pyproject.toml": "", "pkg/.conf/a.toml": "", "pkg/.conf/b.toml": "", ".git/x": ""}
    with on_path(write(tmp_path, files)):
        selection = select(["pkg"], patterns=Patterns(include=("pkg/.conf/a.toml", "*/x")))
    assert names(selection) == ["0/pkg/.conf/a.toml", "0/pkg/__init__.py"]


def test_patterns_that_do_nothing_are_known(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": "[tool.dispatcher]\ninclude = ['conf/*.yaml', 'words.txt']\nexclude = ['*.parquet']\n",
        "pkg/__init__.py": "",
        "words.txt": "",
        "conf/.env": "",
        "big/a.bin": "",
        "pkg/drafts/a.txt": "",
    }
    patterns = Patterns(include=("templates/*", "pkg/drafts", "conf"), exclude=("pkg/drafts/*.txt", "old"))
    with on_path(write(tmp_path, files)):
        selection = select(["pkg"], patterns=patterns)
    assert selection is not None
    own = str(tmp_path / "pyproject.toml")
    mistakes = {(each.source, each.field, each.pattern): each.is_mistake for each in selection.unmatched}
    assert mistakes == {
        ("@flow", "include", "conf"): True,  # there is only a secret
        ("@flow", "include", "pkg/drafts"): True,  # all below it is excluded
        ("@flow", "include", "templates/*"): True,
        ("@flow", "exclude", "old"): True,
        (own, "include", "conf/*.yaml"): True,
        (own, "exclude", "*.parquet"): False,
    }


def test_a_flow_that_came_in_a_bundle_sends_all_of_it_on(tmp_path: Path) -> None:
    """Its patterns were those of ``pyproject.toml`` and of another flow, and of a project with other directories."""
    files = {
        "pyproject.toml": "[tool.dispatcher]\ninclude = ['templates', '.hidden', 'src/pkg/one.pem']\n",
        "src/pkg/__init__.py": "",
        "src/pkg/one.pem": "",
        "templates/a.txt": "",
        ".hidden": "",
    }
    with on_path(write(tmp_path / "project", files) / "src"):
        made = Bundler(python="3.11", limit=10**6).bundle(["pkg"], Patterns(include=("templates/a.txt",)))
    assert made is not None
    there = BundleCache(tmp_path / "cache").get(made.digest, lambda _: made.data)
    write(Path(there.paths[0]), {"pkg/__pycache__/a.pyc": "", "pkg/written": "by the flow"})
    with on_path(Path(there.paths[0])):
        selection = select(["pkg"], patterns=Patterns(include=("templates/a.txt",), exclude=("no.such",)))
    first = names(made.selection)
    assert first == ["0/.hidden", "0/src/pkg/__init__.py", "0/src/pkg/one.pem", "0/templates/a.txt"]
    assert selection is not None
    assert [name for name in names(selection) if not name.endswith("written")] == first
    assert selection.paths == made.selection.paths
    assert selection.unmatched == ()
