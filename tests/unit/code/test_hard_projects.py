"""Projects in odd places and with odd files: each is packed, or refused quickly by an error that says what to do."""

from __future__ import annotations

import io
import os
import socket
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dispatcher.code.bundles import Bundle, Bundler, bundler_for
from dispatcher.code.patterns import NO_PATTERNS, Patterns
from dispatcher.errors import InvalidInput
from dispatcher.settings import Settings
from tests.unit.code.projects import on_path, write

PACKAGE = {"pkg/__init__.py": "", "pkg/a.py": "x = 1\n"}


def pack(project: Path, module: str = "pkg", patterns: Patterns = NO_PATTERNS, **options: Any) -> Bundle:
    with on_path(project):
        made = Bundler(**{"python": "3.11", "limit": 10**7, **options}).bundle([module], patterns)
    assert made is not None
    return made


def names(made: Bundle) -> list[str]:
    return [file.name for file in made.selection.files]


def reasons(made: Bundle) -> dict[str, str]:
    return {os.path.basename(left.path): left.reason for left in made.selection.left_out}  # noqa: PTH119


@pytest.fixture
def soon() -> Iterator[None]:
    """The test must not take long: nothing waits, and nothing looks at a whole disk."""
    begun = time.process_time()
    yield
    assert time.process_time() - begun < 5


def test_too_large_a_bundle_names_the_largest_files(tmp_path: Path) -> None:
    write(tmp_path, {**PACKAGE, "pkg/small.bin": b"1" * 100, "pkg/model.bin": b"1" * 9_000})
    with pytest.raises(InvalidInput) as caught:
        pack(tmp_path, limit=5_000)
    text = str(caught.value)
    assert f"{tmp_path}/pkg/model.bin (9,000)" in text
    assert text.index("model.bin") < text.index("small.bin")
    for remedy in ("DISPATCHER__LIMITS__FLOW", "@flow(exclude=", "[tool.dispatcher]", "at most 5,000"):
        assert remedy in text


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a directory of more than a hundred thousand files."""
    project = write(
        tmp_path_factory.mktemp("crowded"), {**PACKAGE, "etl.py": "", "pkg/images/0.png": "", "some/0.png": ""}
    )
    for number in range(1, 100_001):
        os.close(os.open(f"{project}/pkg/images/{number}.png", os.O_CREAT))
    for number in range(1, 20_001):
        os.close(os.open(f"{project}/some/{number}.png", os.O_CREAT))
    write(project, {"some/other.py": ""})
    return project


@pytest.mark.usefixtures("soon")
def test_more_files_than_a_bundle_may_have(crowded: Path) -> None:
    with pytest.raises(InvalidInput, match=rf"more than 20,000 files below {crowded}/some: exclude some, in \[tool"):
        pack(crowded / "some", "other")
    assert names(pack(crowded / "some", "other", Patterns(exclude=("*.png",)))) == ["0/other.py"]


@pytest.mark.usefixtures("soon")
def test_a_package_with_a_hundred_thousand_files(crowded: Path) -> None:
    with pytest.raises(InvalidInput, match=r"looked at more than 100,000 files, the last in .*/pkg/images: exclude"):
        pack(crowded)
    assert names(pack(crowded, patterns=Patterns(exclude=("pkg/images",)))) == ["0/pkg/__init__.py", "0/pkg/a.py"]


@pytest.mark.usefixtures("soon")
def test_a_pattern_that_would_look_at_a_whole_disk_is_refused(crowded: Path) -> None:
    with pytest.raises(InvalidInput, match=r"looked at more than 100,000 files, the last in .*/pkg/images: exclude"):
        pack(crowded, "etl", Patterns(include=("*.csv",)))
    assert names(pack(crowded, "etl")) == ["0/etl.py"]


@pytest.mark.usefixtures("soon")
def test_a_project_at_the_root_of_the_disk() -> None:
    """Only the module and files beside it are looked at."""
    if os.geteuid() or not os.access("/", os.W_OK):
        pytest.skip("the root directory can't be written")
    path = Path("/dispatcher_test_etl.py")
    path.write_text("x = 1\n")
    try:
        made = pack(Path("/"), "dispatcher_test_etl")
    finally:
        path.unlink()
    assert "0/dispatcher_test_etl.py" in names(made)
    assert made.selection.paths == ("0",)
    assert all(file.path.count("/") == 1 for file in made.selection.files)


def test_a_project_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home directory under version control is no project: what lies beside it stays there."""
    home = write(
        tmp_path / "home", {".git/config": "", "etl.py": "", ".ssh/id_rsa": "", ".bashrc": "", "notes.txt": ""}
    )
    monkeypatch.setenv("HOME", str(home))
    made = pack(home, "etl")
    assert names(made) == ["0/etl.py", "0/notes.txt"]
    assert reasons(made) == {".bashrc": "hidden"}


@pytest.mark.usefixtures("soon")
def test_what_is_no_file(tmp_path: Path) -> None:
    project = write(tmp_path, PACKAGE)
    os.mkfifo(project / "pkg/pipe.csv")
    os.mkfifo(project / "pkg/module.py")
    (project / "pkg/null.dat").symlink_to("/dev/null")
    (project / "pkg/zero.dat").symlink_to("/dev/zero")
    (project / "pkg/gone.txt").symlink_to("nowhere")
    (project / "pkg/round").symlink_to(project / "pkg")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(project)
        listener.bind("pkg/s.sock")
        made = pack(project)
    assert names(made) == ["0/pkg/__init__.py", "0/pkg/a.py"]
    assert reasons(made) == {
        "pipe.csv": "no ordinary file",
        "module.py": "no ordinary file",
        "s.sock": "no ordinary file",
        "null.dat": "a link that leads out of the project",
        "zero.dat": "a link that leads out of the project",
        "gone.txt": "can't be read: No such file or directory",
        "round": "a link to a directory",
    }


def test_names_that_cannot_be_written_everywhere(tmp_path: Path) -> None:
    project = write(tmp_path, {**PACKAGE, "pkg/grüße.txt": "1", "pkg/two words\n.txt": "1"})
    for name in (b"latin-\xe9.txt", b"back\\slash.txt"):
        with open(os.fsencode(project / "pkg") + b"/" + name, "w"):  # noqa: PTH123 - bytes
            pass
    made = pack(project)
    assert names(made) == ["0/pkg/__init__.py", "0/pkg/a.py", "0/pkg/grüße.txt", "0/pkg/two words\n.txt"]
    assert set(reasons(made).values()) == {"its name isn't UTF-8 or has a backslash"}


def as_nobody(call: Callable[[], object]) -> str:
    """Return the text of a call's error in a process without root's rights."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            call()
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text


def test_files_that_cannot_be_read() -> None:
    with tempfile.TemporaryDirectory() as directory:
        project = write(Path(directory), {**PACKAGE, "pkg/secret.csv": "1", "pkg/closed/a.csv": "1"})
        for path in (project, project / "pkg"):
            path.chmod(0o755)
        (project / "pkg/closed").chmod(0)
        (project / "pkg/secret.csv").chmod(0)
        text = as_nobody(lambda: pack(project))
        assert text == (
            f"InvalidInput: code bundle: can't read {project}/pkg/secret.csv (package pkg): Permission denied: make it "
            "readable, or leave it out by @flow(exclude=[...]) or [tool.dispatcher] exclude in pyproject.toml"
        )
        (project / "pkg/secret.csv").chmod(0o644)
        assert as_nobody(lambda: pack(project)) == ""


# -- secrets


def planted() -> Mapping[str, Any]:
    keys = '{"k0123abcd": "0123456789abcdef0123"}'
    return {
        ".env": "1", "prod.env": "1", ".env.local": "1", ".netrc": "1", ".aws/credentials": "1", "server.pem": "1",
        "tls.key": "1", "id_rsa": "1", "id_ed25519": "1", "id_rsa.pub": "1", "store.p12": "1", "kubeconfig": "1",
        "service-account-prod.json": "{}", "secrets.yaml": "1", "keys.json": keys, "keys": keys,
        "keys.txt": f"\n {keys}", "linked.json": keys, "own-keys.json": "not JSON", "dispatcher.toml": "1",
        "redis.conf": "1",
        "redis/dump.rdb": "1", "redis/temp-1.rdb": "1", "redis/appendonlydir/a.aof": "1", "state/server.json": "{}",
        "venv/bin/python": "1", "env3/pyvenv.cfg": "", "env3/lib/x.py": "", ".venv/lib/a.py": "", ".git/config": "1",
        ".hg/hgrc": "1", ".svn/wc.db": "1", ".mypy_cache/a.json": "1", "__pycache__/a.pyc": "1",
        ".ipynb_checkpoints/nb.py": "1", "node_modules/a.js": "1",
    }  # fmt: skip


def test_secrets_never_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a package, beside a module, and found by a pattern of the whole project that names no file."""
    files = planted()
    good = {"etl.py": "import pkg, id_numbers", "id_numbers.py": "", "pkg/id_names.py": "", "data.csv": "1"}
    project = write(
        tmp_path / "project", {**PACKAGE, **good, **files, **{f"pkg/{name}": files[name] for name in files}}
    )
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "pkg"))
    write(project, {"pkg/dispatcher/keys.bin": "1"})
    settings = Settings.load(signing_keys_file=project / "own-keys.json", state_dir=project / "pkg/state")
    (project / "pkg/alias.bin").symlink_to(project / "own-keys.json")
    os.link(project / "own-keys.json", project / "pkg/hard.bin")
    (project / "pkg/own-keys.json").unlink()
    with on_path(project):
        made = bundler_for(settings).bundle(["etl"])
    assert made is not None
    packed = set(zipfile.ZipFile(io.BytesIO(made.data)).namelist())
    assert packed == {
        "bundle.json", "0/etl.py", "0/id_numbers.py", "0/data.csv", "0/pkg/__init__.py", "0/pkg/a.py",
        "0/pkg/id_names.py", "0/pkg/dispatcher/keys.bin",
    }  # fmt: skip
    default = Settings.load()
    with on_path(project):
        made = bundler_for(default).bundle(["pkg"])
    assert made is not None
    assert "0/pkg/dispatcher/keys.bin" not in names(made), "the state directory that no setting names"


# -- the same everywhere


def test_the_same_project_elsewhere_has_the_same_digest(tmp_path: Path) -> None:
    files = {**PACKAGE, "pyproject.toml": "", "src/etl.py": "import pkg", "src/data.csv": "1", "run.sh": "#!/bin/sh"}
    first = write(tmp_path / "alice/deep/project", files)
    mask = os.umask(0o077)
    try:
        second = write(tmp_path / "bob", dict(reversed(list(files.items()))))
    finally:
        os.umask(mask)
    for path in second.rglob("*"):
        os.utime(path, (1, 1))
    bundles = []
    for project in (first, second):
        with on_path(project / "src", project):
            bundles.append(Bundler(python="3.11", limit=10**7).bundle(["etl"]))
    earlier, later = bundles
    assert earlier is not None
    assert later is not None
    assert earlier.digest == later.digest
    for text in (b"alice", b"bob", os.fsencode(tmp_path), os.fsencode(Path.home())):
        assert text not in earlier.data
    assert sys.version.encode() not in earlier.data
