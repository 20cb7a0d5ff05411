"""Several bundles that are importable in one process at once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.code.bundles import Bundler
from dispatcher.code.cache import BundleCache
from dispatcher.code.sharing import Prepared, SharedImporter, User
from dispatcher.errors import InvalidInput, Permanent, SealBroken
from dispatcher.support.interpreter import PYTHON
from tests.unit.code.projects import on_path, write

ONE, OTHER = User("1", "run one"), User("2", "run other")


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Checks that each test leaves the import system as it was."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    assert sys.path == path
    assert {name for name in sys.modules.keys() - modules if name.startswith("shared_")} == set()


@pytest.fixture
def importer(tmp_path: Path) -> SharedImporter:
    return SharedImporter(BundleCache(tmp_path / "cache"), PYTHON)


class Maker:
    """Packs projects and prepares their bundles."""

    def __init__(self, directory: Path, importer: SharedImporter) -> None:
        self._directory = directory
        self._importer = importer
        self._count = 0

    def __call__(self, module: str, **sources: str) -> Prepared:
        self._count += 1
        files = {f"{name}.{'txt' if name == 'data' else 'py'}": source for name, source in sources.items()}
        directory = write(self._directory / f"project{self._count}", files)
        importlib.invalidate_caches()
        with on_path(directory):
            bundle = Bundler(python=PYTHON, limit=2**20).bundle([module])
        assert bundle is not None
        return self._importer.prepare(bundle.digest, lambda _digest: bundle.data)


@pytest.fixture
def make(tmp_path: Path, importer: SharedImporter) -> Maker:
    return Maker(tmp_path, importer)


def value_of(name: str) -> Any:
    return importlib.import_module(name).VALUE


def test_two_users_of_one_bundle_share_its_modules(importer: SharedImporter, make: Maker) -> None:
    bundle = make("shared_a", shared_a="VALUE = object()")
    assert importer.open(ONE, [bundle]) == importer.open(OTHER, [bundle]) == ""
    value = value_of("shared_a")
    importer.close(ONE.id)
    assert value_of("shared_a") is value
    importer.close(OTHER.id)
    with pytest.raises(ModuleNotFoundError):
        value_of("shared_a")
    importer.open(ONE, [bundle])
    assert value_of("shared_a") is not value, "forgotten meanwhile"
    importer.close(ONE.id)
    importer.close(ONE.id)


def test_bundles_with_other_modules_are_importable_at_once(importer: SharedImporter, make: Maker) -> None:
    importer.open(ONE, [make("shared_a", shared_a="VALUE = 1")])
    importer.open(OTHER, [make("shared_b", shared_b="VALUE = 2")])
    assert (value_of("shared_a"), value_of("shared_b")) == (1, 2)
    importer.close(ONE.id)
    importer.close(OTHER.id)


def test_modules_of_one_name_are_refused_until_the_other_ends(importer: SharedImporter, make: Maker) -> None:
    first, second = (make("shared_a", shared_a=f"VALUE = {number}") for number in (1, 2))
    assert importer.open(ONE, [first]) == ""
    assert value_of("shared_a") == 1
    problem = importer.open(OTHER, [second])
    assert "module 'shared_a' is in two code bundles" in problem
    for named in ("run one", "run other", first.bundle.digest[:16], second.bundle.digest[:16]):
        assert named in problem
    assert not importer.is_open(OTHER.id)
    with importer.held(ONE.id):
        importer.close(ONE.id)
        assert importer.open(OTHER, [second]), "a call of the first one still runs"
        assert value_of("shared_a") == 1
    assert importer.open(OTHER, [second]) == ""
    assert value_of("shared_a") == 2
    importer.close(OTHER.id)


def test_the_same_module_in_two_bundles(importer: SharedImporter, make: Maker) -> None:
    common = "VALUE = object()"
    first = make("shared_a", shared_a="import shared_c", shared_c=common)
    second = make("shared_b", shared_b="import shared_c", shared_c=common)
    assert first.bundle.digest != second.bundle.digest
    assert importer.open(ONE, [first]) == importer.open(OTHER, [second]) == ""
    value = value_of("shared_c")
    importer.close(ONE.id)
    assert value_of("shared_c") is value
    importer.close(OTHER.id)


def test_data_beside_a_module_belongs_to_it(importer: SharedImporter, make: Maker) -> None:
    first, second = (make("shared_a", shared_a="VALUE = 1", data=text) for text in ("one", "other"))
    importer.open(ONE, [first])
    assert "module 'shared_a'" in importer.open(OTHER, [second])
    importer.close(ONE.id)


def test_a_module_of_the_process_steps_aside(importer: SharedImporter, make: Maker, tmp_path: Path) -> None:
    bundle = make("shared_a", shared_a="VALUE = 'of the bundle'")
    with on_path(write(tmp_path / "here", {"shared_a.py": "VALUE = 'of the process'"})):
        before = importlib.import_module("shared_a")
        importer.open(ONE, [bundle])
        assert value_of("shared_a") == "of the bundle"
        importer.close(ONE.id)
        assert sys.modules["shared_a"] is before


@pytest.mark.parametrize("name", ["queue", "msgpack"])
def test_a_module_with_the_name_of_a_library_in_use_is_refused(
    importer: SharedImporter, make: Maker, tmp_path: Path, name: str
) -> None:
    library = importlib.import_module(name)
    del sys.modules[name]
    try:
        bundle = make(name, **{name: "VALUE = 1"})
    finally:
        sys.modules[name] = library
    with pytest.raises(InvalidInput, match=f"module '{name}' has the name of an installed one.*rename"):
        importer.open(ONE, [bundle])
    assert sys.modules[name] is library


def test_what_was_changed_or_packed_elsewhere_is_refused(tmp_path: Path, make: Maker) -> None:
    bundle = make("shared_a", shared_a="VALUE = 1").bundle
    data = Path(bundle.archive).read_bytes()
    fresh = SharedImporter(BundleCache(tmp_path / "fresh"), "3.99")
    with pytest.raises(SealBroken):
        fresh.prepare(bundle.digest, lambda _digest: data + b"x")
    with pytest.raises(Permanent, match=r"Python 3\.99"):
        fresh.prepare(bundle.digest, lambda _digest: data)
