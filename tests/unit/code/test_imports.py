"""The import scan sees every form of import, and executes nothing."""

from __future__ import annotations

import os
import py_compile
import time
from pathlib import Path

import pytest

from dispatcher.code.imports import imports_of, imports_of_file


def scanned(source: str, package: str = "") -> set[str]:
    return set(imports_of(compile(source, "a.py", "exec"), package))


@pytest.mark.parametrize(
    ("source", "package", "names"),
    [
        ("import a", "", {"a"}),
        ("import a.b as c, d", "", {"a.b", "d"}),
        ("from a import b, c as e", "", {"a", "a.b", "a.c"}),
        ("from a import *", "", {"a"}),
        ("from . import b", "p.q", {"p.q", "p.q.b"}),
        ("from .b import c", "p.q", {"p.q.b", "p.q.b.c"}),
        ("from ..b import c", "p.q", {"p.b", "p.b.c"}),
        ("from .. import b", "p.q", {"p", "p.b"}),
        ("from ... import b", "p.q", set()),
        ("from . import b", "", set()),
        ("def f():\n    import a\n    def g():\n        from b import c", "", {"a", "b", "b.c"}),
        ("class C:\n    import a", "", {"a"}),
        ("async def f():\n    return [__import__('a') for _ in x]", "", {"a"}),
        ("if False:\n    import a\nelse:\n    import b", "", {"b"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", "", {"a", "b"}),
        ("import importlib\ndef f():\n    return importlib.import_module('p.late')", "", {"importlib", "p.late"}),
        ("from importlib import import_module\nimport_module('.late', 'p')", "p", {"importlib", "p.late", "p"}),
        ("x = 'a.b'", "", set()),
        ("f = lambda: __import__('a.b')", "", {"a.b"}),
        ("raise SystemExit", "", set()),
    ],
)
def test_each_form(source: str, package: str, names: set[str]) -> None:
    assert names <= scanned(source, package) | {"importlib.import_module"}
    assert scanned(source, package) <= names | {"importlib.import_module"}


@pytest.mark.parametrize("content", [b"def f(:\n", b"\x00", b"\xff\xfe\xfa", "é = '".encode("latin-1")])
def test_a_file_that_is_no_python_imports_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.py").write_bytes(content)
    assert imports_of_file(tmp_path / "a.py", "") == frozenset()
    assert imports_of_file(tmp_path / "gone.py", "") == frozenset()


def test_a_changed_file_is_scanned_again(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("import first")
    assert imports_of_file(path, "") == {"first"}
    path.write_text("import second, third")
    assert imports_of_file(path, "") == {"second", "third"}


def test_nothing_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nimport b\n")
    assert imports_of_file(path, "") == {"b"}
    assert not (tmp_path / "ran").exists()


def test_cached_code_of_before_an_edit_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    now = time.time()
    before, after = now - 60, now + 60

    def write(name: str) -> None:
        path.write_text(f"import {name}")  # always of one size, in one second
        os.utime(path, (1000, 1000))

    write("first")
    cached = Path(str(py_compile.compile(str(path))))
    os.utime(cached, (after, after))
    assert imports_of_file(path, "") == {"first"}
    write("other")
    os.utime(cached, (before, before))
    assert imports_of_file(path, "") == {"other"}
    os.utime(cached, (after, after))
    write("third")
    assert imports_of_file(path, "") == {"first"}, "it is the code that Python would import"
    cached.write_bytes(b"no code")
    os.utime(cached, (after, after))
    write("fifth")
    assert imports_of_file(path, "") == {"fifth"}
    assert cached.read_bytes() == b"no code"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a\ndef f():\n    return 1\n", {"a"}),
        ("import a\n'''\nclass of its own\n'''\nimport b\n\nclass C:\n    pass\n", {"a", "b"}),
        ("import a\nTEXT = '''\ndef f(): not code\n'''\n", {"a"}),
        ("try:\n    import a\nexcept ImportError:\n    pass\nasync def f(): ...\n", {"a"}),
        ("def f(): ...\n\ndef g():\n    import a\n\nclass C: ...\n", {"a"}),
        ("def f(): ...\n", set()),
        ("def f(): ...\nx = 'import a'\n", set()),
        ("from importlib import import_module as load\ndef f(): ...\nload('a.late')\n", {"importlib", "a.late"}),
    ],
)
def test_what_stands_behind_the_last_import_does_not_matter(tmp_path: Path, source: str, names: set[str]) -> None:
    (tmp_path / "a.py").write_text(source)
    assert imports_of_file(tmp_path / "a.py", "") - {"importlib.import_module"} == names


def test_definitions_behind_the_last_import_are_not_compiled(tmp_path: Path) -> None:
    """It is most of the first submit's time in a project of 2,000 files."""
    (tmp_path / "a.py").write_text("import a\n\ndef f():\n    return ]\n")
    assert imports_of_file(tmp_path / "a.py", "") == {"a"}
