"""Secrets of a worker, by name: where they are looked for, in which order, and what errors say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.container.secret_sources import find_secret, is_secret_name
from dispatcher.errors import Permanent, Transient

SECRET = "hunter2"


def vault(name: str) -> str | None:
    """A source of another distribution."""
    match name:
        case "FAILS":
            raise OSError(f"can't log in with {SECRET}")
        case "AWAY":
            raise Transient("the vault is sealed")
        case "NUMBER":
            return 7  # type: ignore[return-value]
    return SECRET if name == "IN_VAULT" else None


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the source, as an installed distribution does."""
    about = tmp_path / "site" / "theirs-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[dispatcher.secrets]\nvault = {__name__}:vault\n")
    monkeypatch.syspath_prepend(about.parent)


def test_a_variable_comes_before_a_file(tmp_path: Path) -> None:
    (tmp_path / "REGISTRY").write_text("of the file\n")
    assert find_secret("REGISTRY", folder=tmp_path, variables={"REGISTRY": "of the variable"}) == "of the variable"
    assert find_secret("REGISTRY", folder=tmp_path, variables={}) == "of the file"


@pytest.mark.usefixtures("registered")
def test_another_distribution_may_have_it() -> None:
    assert find_secret("IN_VAULT", folder=None, variables={}) == SECRET


@pytest.mark.usefixtures("registered")
def test_an_error_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=rf"^REGISTRY: .* in its variables, the folder {tmp_path}, vault$"):
        find_secret("REGISTRY", folder=tmp_path, variables={})


@pytest.mark.usefixtures("registered")
def test_an_error_of_a_source_shows_nothing_of_the_secret() -> None:
    with pytest.raises(Permanent) as caught:
        find_secret("FAILS", folder=None, variables={})
    assert str(caught.value) == "FAILS: the source vault of secrets raised OSError"
    with pytest.raises(Transient, match="the vault is sealed"):
        find_secret("AWAY", folder=None, variables={})
    with pytest.raises(Permanent, match="must return a string or None"):
        find_secret("NUMBER", folder=None, variables={})


@pytest.mark.parametrize(
    "name", ["", "../etc/passwd", "/etc/passwd", ".hidden", "a/b", "DISPATCHER__SIGNING_KEYS", "a\n"]
)
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    assert not is_secret_name(name)
    with pytest.raises(Permanent, match="can't be the name of a secret"):
        find_secret(name, folder=tmp_path, variables={name: SECRET})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe")
    (tmp_path / "LARGE").write_bytes(b"x" * (2**20 + 1))
    for name, problem in (
        ("FOLDER", "Is a directory"),
        ("BINARY", "isn't text"),
        ("LARGE", "more than 1,048,576 bytes"),
    ):
        with pytest.raises(Permanent, match=problem) as caught:
            find_secret(name, folder=tmp_path, variables={})
        assert str(tmp_path / name) in str(caught.value)
