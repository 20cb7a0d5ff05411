"""Archives are the same for the same files, and one from an attacker writes nowhere else."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from dispatcher.code import archive
from dispatcher.code.selection import select
from dispatcher.errors import Malformed
from tests.unit.code.projects import on_path, write


def packed(directory: Path) -> bytes:
    with on_path(directory):
        selection = select(["pkg"])
    assert selection is not None
    return archive.pack(selection, "3.11", lambda file: Path(file.path).read_bytes())


def forged(members: dict[str, bytes], **description: object) -> bytes:
    buffer = io.BytesIO()
    digests = {name: sha256(data).hexdigest() for name, data in members.items()}
    fields = {"paths": ["0"], "modules": [], "python": "3.11", "digests": digests, **description}
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("bundle.json", json.dumps(fields))
        for name, data in members.items():
            out.writestr(name, data)
    return buffer.getvalue()


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "", "pkg/run.sh": "#!/bin/sh", "pkg/b.bin": os.urandom(1000)}
    here, there = write(tmp_path / "here", files), write(tmp_path / "there", files)
    (here / "pkg/run.sh").chmod(0o755)
    (there / "pkg/run.sh").chmod(0o711)
    os.utime(there / "pkg/__init__.py", (time.time() - 1e6, 1e6))
    assert packed(here) == packed(there)


def test_it_unpacks_to_what_was_packed(tmp_path: Path) -> None:
    write(tmp_path / "project", {"pkg/__init__.py": "x = 1", "pkg/run.sh": "#!/bin/sh"})
    (tmp_path / "project/pkg/run.sh").chmod(0o755)
    (out := tmp_path / "out").mkdir()
    description = archive.extract(packed(tmp_path / "project"), out)
    assert (out / "0/pkg/__init__.py").read_text() == "x = 1"
    assert os.access(out / "0/pkg/run.sh", os.X_OK)
    assert description.paths == ("0",)
    assert description.modules == ("pkg",)
    assert list(archive.changed_files(description, out)) == []
    (out / "0/pkg/__init__.py").chmod(0o600)
    (out / "0/pkg/__init__.py").write_text("x = 2")
    assert list(archive.changed_files(description, out)) == ["0/pkg/__init__.py"]


@pytest.mark.parametrize("name", ["../out.txt", "/etc/x", "0/../../x", "a\\b", "0/\0x"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Malformed):
        archive.extract(forged({name: b"x"}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        forged({}, paths=["../.."]),
        forged({}, paths=3),
        forged({}, digests=[]),
        forged({"0/a.py": b"x"}, digests={"0/a.py": "0" * 64}),
        forged({"0/a.py": b"x"}, digests={}),
    ],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Malformed):
        archive.extract(data, tmp_path)


def test_a_file_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO(forged({"0/a.py": b"x"}))
    with zipfile.ZipFile(buffer, "a") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("0/a.py", b"x")
    with pytest.raises((Malformed, FileExistsError)):
        archive.extract(buffer.getvalue(), tmp_path)


def test_an_archive_that_inflates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 10_000)
    with pytest.raises(Malformed, match="more than"):
        archive.extract(forged({"0/a.py": bytes(20_000)}), tmp_path)
