"""A bundle is made once for the same files, again after an edit, and never too large; a stale module is named."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path

import pytest

from dispatcher.code.bundles import LOOK_AGAIN_AFTER, Bundle, Bundler
from dispatcher.code.patterns import Patterns
from dispatcher.errors import InvalidInput
from tests.unit.code.projects import on_path, write


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def bundler(clock: Clock, limit: int = 10**6) -> Bundler:
    return Bundler(python="3.11", limit=limit, clock=clock)


def test_an_edit_is_seen_after_a_moment(tmp_path: Path) -> None:
    clock = Clock()
    maker = bundler(clock)
    with on_path(write(tmp_path, {"helper.py": "x = 1"})):
        first = maker.bundle(["helper"])
        assert first is not None
        assert first.has("helper")
        assert not first.has("other")
        (tmp_path / "helper.py").write_text("x = 22")
        assert maker.bundle(["helper"]) is first, "not looked at yet"
        clock.now += 2 * LOOK_AGAIN_AFTER
        second = maker.bundle(["helper"])
        assert second is not None
        assert second.digest != first.digest
        clock.now += 2 * LOOK_AGAIN_AFTER
        assert maker.bundle(["helper"]) is second


def test_a_module_of_the_same_name_elsewhere_is_another_bundle(tmp_path: Path) -> None:
    maker = bundler(Clock())
    made = []
    for directory in (tmp_path / "a", tmp_path / "b"):
        with on_path(write(directory, {"helper.py": f"x = {directory.name!r}"})):
            importlib.import_module("helper")
            made.append(maker.bundle(["helper"]))
    first, second = made
    assert first is not None
    assert second is not None
    assert first.digest != second.digest


def test_twenty_edits_give_twenty_bundles(tmp_path: Path) -> None:
    clock, digests = Clock(), set()
    maker = bundler(clock)
    with on_path(write(tmp_path, {"helper.py": ""})):
        for number in range(20):
            (tmp_path / "helper.py").write_text(f"x = {10 + number}")
            os.utime(tmp_path / "helper.py", ns=(number, number))
            clock.now += 2 * LOOK_AGAIN_AFTER
            made = maker.bundle(["helper"])
            assert made is not None
            digests.add(made.digest)
    assert len(digests) == 20


def test_a_new_import_brings_another_module(tmp_path: Path) -> None:
    clock = Clock()
    maker = bundler(clock)
    with on_path(write(tmp_path, {"helper.py": "", "later.py": ""})):
        assert _has(maker.bundle(["helper"]), "helper")
        (tmp_path / "helper.py").write_text("def f():\n    import later\n")
        clock.now += 2 * LOOK_AGAIN_AFTER
        assert _has(maker.bundle(["helper"]), "helper", "later")


def _has(bundle: Bundle | None, *modules: str) -> bool:
    return bundle is not None and bundle.selection.modules == set(modules)


def test_nothing_of_a_project_gives_none() -> None:
    assert bundler(Clock()).bundle(["json"]) is None
    assert bundler(Clock()).bundle([]) is None


def test_too_large_names_the_largest_files(tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "", "pkg/model.bin": bytes(5000), "pkg/small.bin": bytes(10)}
    with on_path(write(tmp_path, files)), pytest.raises(InvalidInput, match=r"model\.bin \(5,000\)") as error:
        bundler(Clock(), limit=4000).bundle(["pkg"])
    assert "DISPATCHER__LIMITS__FLOW" in str(error.value)
    assert "exclude" in str(error.value)


def test_signing_keys_are_left_out_by_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {"pkg/__init__.py": "", "pkg/mine.json": '{"k0123abcd": "0123456789abcdef0"}'}
    with on_path(write(tmp_path, files)):
        made = bundler(Clock()).bundle(["pkg"])
    assert made is not None
    assert b"0123456789abcdef0" not in made.data
    assert "mine.json, which holds signing keys" in caplog.text


def test_a_module_that_was_edited_after_its_import_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    maker = bundler(clock)
    caplog.set_level(logging.WARNING)
    with on_path(write(tmp_path, {"edited.py": "def f():\n    return 1\n", "same.py": "def f():\n    return 1\n"})):
        importlib.import_module("edited")
        importlib.import_module("same")
        maker.bundle(["edited", "same"])
        assert caplog.text == ""
        (tmp_path / "edited.py").write_text("def f():\n    return 22\n")
        (tmp_path / "same.py").write_text("def f():\n    return 1\n\n# a remark\n")
        clock.now += 2 * LOOK_AGAIN_AFTER
        maker.bundle(["edited", "same"])
    assert "Module edited has changed since it was imported" in caplog.text
    assert "Module same" not in caplog.text


def test_the_submits_of_many_flows_are_remembered(tmp_path: Path) -> None:
    clock = Clock()
    maker = bundler(clock)
    with on_path(write(tmp_path, {f"m{number}.py": "" for number in range(40)})):
        made = [maker.bundle([f"m{number}"]) for number in range(40)]
        assert maker.bundle(["m39"]) is made[39]
        again = maker.bundle(["m0"])
    assert again is not made[0], "forgotten, and the same"
    assert again is not None
    assert made[0] is not None
    assert again.digest == made[0].digest


def test_patterns_that_do_nothing_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    maker = bundler(clock)
    files = {"a.py": "", "pyproject.toml": "[tool.dispatcher]\nexclude = ['*.parquet']\n"}
    with on_path(write(tmp_path, files)):
        for number in range(3):
            (tmp_path / "a.py").write_text(f"x = {number}")
            clock.now += 2 * LOOK_AGAIN_AFTER
            maker.bundle(["a"], Patterns(include=("tmplates/*",), exclude=("notes",)))
    assert [record.getMessage() for record in caplog.records] == [
        "Code bundle: @flow: exclude 'notes' matches nothing that would travel",
        "Code bundle: @flow: include 'tmplates/*' matches no file of the project that may travel",
    ]


def test_patterns_of_a_flow_without_files_are_told(caplog: pytest.LogCaptureFixture) -> None:
    for modules in (["json"], []):
        assert bundler(Clock()).bundle(modules, Patterns(include=("data.csv",))) is None
    assert caplog.text.count("@flow: include ['data.csv'] adds nothing") == 2
    assert "relative to __file__" in caplog.text
