"""The modules that a run leaves behind, as its process notices them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from dispatcher.runner.process_state.modules import ModuleBaseline


def _replace(modules: dict[str, ModuleType]) -> None:
    modules["b"] = ModuleType("another")


def _remove(modules: dict[str, ModuleType]) -> None:
    del modules["c"]


def _rename_the_last(modules: dict[str, ModuleType]) -> None:
    modules["alias"] = modules.pop("c")


def _swap(modules: dict[str, ModuleType]) -> None:
    modules["a"], modules["b"] = modules["b"], modules["a"]


CHANGES = {"replaced": _replace, "removed": _remove, "renamed": _rename_the_last, "swapped": _swap}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_modules_are_restored(
    change: Callable[[dict[str, ModuleType]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {name: ModuleType(name) for name in "abc"}
    monkeypatch.setattr(sys, "modules", table)
    before = dict(table)
    baseline = ModuleBaseline()
    baseline.restore()
    change(table)
    baseline.restore()
    assert {name: table[name] for name in before} == before
