"""Pickles: the code that travels by value, classes, and errors that name the culprit."""

from __future__ import annotations

import enum
import importlib
import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import cloudpickle
import pytest

from dispatcher.errors import InvalidFlow, InvalidInput, InvalidParameters, Permanent
from dispatcher.runs.routing import Route
from dispatcher.runs.states import Cause
from dispatcher.serialization import by_value, pack, packages, unpack
from dispatcher.serialization.pickles import modules
from dispatcher.support.interpreter import PYTHON
from tests.conftest import PYTHON as INTERPRETER

Make = Callable[..., ModuleType]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write a module and import it."""

    def write(name: str, text: str, *, directory: Path = tmp_path) -> ModuleType:
        path = directory / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        monkeypatch.syspath_prepend(directory)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return write


@pytest.fixture
def register(make: Make) -> Iterator[Make]:
    """Write a module, import it, and let it travel by value."""
    registered: list[ModuleType] = []

    def write(name: str, text: str) -> ModuleType:
        module = make(name, text)
        cloudpickle.register_pickle_by_value(module)
        registered.append(module)
        return module

    yield write
    for module in registered:
        cloudpickle.unregister_pickle_by_value(module)


def install(directory: Path, name: str, version: str) -> None:
    """Write the files that ``pip install --target`` leaves beside a module."""
    info = directory / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n")


# ---------------------------------------------------------------------------------------- code that travels by value


def test_code_of_a_module_beside_travels_in_a_bundle(make: Make) -> None:
    make("beside_helper", "FACTOR = 3\ndef times(x):\n    return x * FACTOR\n")
    user = make("beside_user", "import beside_helper\ndef body(x):\n    return beside_helper.times(x) + 1\n")
    data = pack(user.body, subject="flow 'body'")
    assert modules(data) == {"beside_user"}
    assert b"beside_helper" not in data
    assert unpack(data) is user.body


def test_code_of_a_registered_module_travels_by_value(register: Make, tmp_path: Path) -> None:
    register("beside_helper", "FACTOR = 3\ndef times(x):\n    return x * FACTOR\n")
    user = register("beside_user", "import beside_helper\ndef body(x):\n    return beside_helper.times(x) + 1\n")
    (tmp_path / "sealed").write_bytes(pack(user.body, subject="flow 'body'"))
    code = "import sys; from dispatcher.serialization import unpack; print(unpack(open(sys.argv[1], 'rb').read())(7))"
    done = subprocess.run(
        [INTERPRETER, "-c", code, str(tmp_path / "sealed")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() == "22"


def test_a_module_travels_as_it_is_now(register: Make) -> None:
    module = register("beside_now", "FACTOR = 3\ndef times(x):\n    return x * FACTOR\n")
    setattr(module, "FACTOR", 5)  # noqa: B010 - no stub knows it
    assert unpack(pack(module.times, subject="f"))(2) == 10


def test_a_traceback_shows_the_lines_of_code_that_travelled(register: Make) -> None:
    module = register("beside_lines", "def outer():\n    def inner():\n        return 1 / 0\n    return inner\n")
    with pytest.raises(ZeroDivisionError) as caught:
        unpack(pack(module.outer, subject="f"))()()
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.line) == (module.__file__, "return 1 / 0")


def test_packing_leaves_the_register_of_the_process(make: Make) -> None:
    module = make("beside_register", "import threading\nlock = threading.Lock()\ndef f():\n    return lock\n")
    del module.__file__
    before = cloudpickle.list_registry_pickle_by_value()
    pack(module.f.__name__, subject="name")
    with pytest.raises(InvalidFlow):
        pack(module.f, subject="flow 'f'")
    assert cloudpickle.list_registry_pickle_by_value() == before


def test_what_a_user_registered_stays_registered(make: Make) -> None:
    module = make("beside_kept", "def f():\n    return 1\n")
    cloudpickle.register_pickle_by_value(module)
    try:
        pack(module.f, subject="flow 'f'")
        assert "beside_kept" in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_installed_code_travels_by_reference() -> None:
    assert unpack(pack(click.echo, subject="f")) is click.echo
    assert unpack(pack(json.dumps, subject="f")) is json.dumps
    assert unpack(pack(Route, subject="class")) is Route, "our own packages too, also in an editable install"


def test_a_users_own_package_called_workers_travels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "workers" / "__init__.py"
    monkeypatch.setitem(sys.modules, "workers", theirs := ModuleType("workers"))
    theirs.__file__ = str(path)
    assert by_value.travels_by_value("workers")
    theirs.__file__ = str(Path(__file__).parents[2] / "workers" / "__init__.py")
    assert not by_value.travels_by_value("workers")


def test_a_target_directory_is_installed_but_not_what_stands_beside(make: Make, tmp_path: Path) -> None:
    target = tmp_path / "target"
    install(target, "target_lib", "1.5")
    make("target_lib", "def f():\n    return 1\n", directory=target)
    make("target_own", "def f():\n    return 1\n", directory=target)
    assert not by_value.travels_in_bundle("target_lib")
    assert by_value.travels_in_bundle("target_own")
    assert not by_value.travels_by_value("target_lib")
    assert not by_value.travels_by_value("target_own")


@pytest.mark.parametrize(
    "name", ["json", "sys", "_thread", "os.path", "click", "click.core", "numpy.nowhere", "__main__"]
)
def test_modules_that_need_not_travel(name: str) -> None:
    assert not by_value.travels_by_value(name)


def test_functions_of_one_module_share_their_globals(register: Make) -> None:
    module = register(
        "beside_shared", "seen = []\ndef add(x):\n    seen.append(x)\ndef all_of():\n    return list(seen)\n"
    )
    add, all_of = unpack(pack((module.add, module.all_of), subject="both"))
    add(1)
    assert all_of() == [1]
    assert module.seen == []


# ------------------------------------------------------------------------------------------------------ classes


class Colour(enum.Enum):
    RED = 1


class Basket:
    kind = "basket"

    def __init__(self, things: list[str]) -> None:
        self.things = things

    def count(self) -> int:
        return len(self.things)


def test_opening_leaves_this_programs_own_classes_alone() -> None:
    method = Basket.count
    basket, colour = unpack(pack((Basket(["a"]), Colour.RED), subject="pair"))
    assert type(basket) is Basket
    assert colour is Colour.RED
    assert Basket.count is method


def test_a_copy_of_a_class_is_brought_up_to_date(tmp_path: Path) -> None:
    code = """
import sys
from dispatcher.serialization import unpack
first, second = (open(path, "rb").read() for path in sys.argv[1:])
print(unpack(first).kind, unpack(second).kind)
"""
    before = Basket.kind
    try:
        (tmp_path / "1").write_bytes(pack(Basket, subject="class"))
        Basket.kind = "bag"
        (tmp_path / "2").write_bytes(pack(Basket, subject="class"))
    finally:
        Basket.kind = before
    done = subprocess.run(
        [INTERPRETER, "-c", code, str(tmp_path / "1"), str(tmp_path / "2")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.split() == ["basket", "bag"]


def test_a_copy_that_is_collected_as_the_next_one_is_made_leaves_no_empty_class(tmp_path: Path) -> None:
    code = """
import gc, sys
from cloudpickle import cloudpickle
from dispatcher.serialization import unpack
data = open(sys.argv[1], "rb").read()
make = cloudpickle._make_skeleton_class
def collecting(*args):
    gc.collect()
    return make(*args)
cloudpickle._make_skeleton_class = collecting
gc.disable()
print(unpack(data).kind, unpack(data).kind)
"""
    (tmp_path / "1").write_bytes(pack(Basket, subject="class"))
    done = subprocess.run(
        [INTERPRETER, "-c", code, str(tmp_path / "1")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.split() == ["basket", "basket"]


# ------------------------------------------------------------------------------------------------------- errors


def test_an_unpicklable_global_is_named_with_its_place(register: Make) -> None:
    module = register(
        "beside_lock",
        "import threading\nlock = threading.Lock()\ndef g():\n    return lock\ndef f():\n    return g()\n",
    )
    with pytest.raises(InvalidFlow) as caught:
        pack(module.f, subject="flow 'f'")
    text = str(caught.value)
    assert "flow 'f'" in text
    assert "global 'lock' (a _thread.lock)" in text
    assert f"function g at {module.__file__}:3" in text


def test_an_unpicklable_closure_is_named() -> None:
    lock = threading.Lock()

    def body() -> Any:
        return lock

    with pytest.raises(
        InvalidFlow, match=r"variable 'lock' .*\(a _thread\.lock\) in function .*body at .*test_pickles"
    ):
        pack(body, subject="flow 'body'")


def test_an_unpicklable_default_is_named() -> None:
    def body(*, lock: Any = threading.Lock()) -> Any:  # noqa: B008 - a default is what this is about
        return lock

    with pytest.raises(InvalidFlow, match=r"default of 'lock' \(a _thread\.lock\)"):
        pack(body, subject="flow 'body'")


def test_an_unpicklable_part_of_parameters_is_named() -> None:
    with pytest.raises(InvalidParameters, match=r"parameters .*\['a'\].*item 1.*\(a _thread\.lock\)"):
        pack({"a": [1, threading.Lock()]}, subject="parameters of flow 'f'", error=InvalidParameters)


def test_an_unpicklable_attribute_is_named() -> None:
    basket = Basket([])
    basket.things = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(InvalidInput, match="attribute 'things' of Basket") as caught:
        pack(basket, subject="the result")
    assert not isinstance(caught.value, InvalidFlow)


def test_an_endless_structure_is_an_error_and_no_crash() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="too deeply nested"):
        pack(deep, subject="parameters")


def reheaded(data: bytes, **changes: Any) -> bytes:
    """Return packed bytes with another header."""
    header, _, rest = data.partition(b"\n")
    return json.dumps({**json.loads(header), **changes}).encode() + b"\n" + rest


def test_another_python_is_refused_before_anything_is_opened() -> None:
    data = reheaded(pack(Explosive(), subject="bomb"), python="3.9")
    with pytest.raises(Permanent, match=r"3\.9") as caught:
        unpack(data)
    assert PYTHON in str(caught.value)
    assert caught.value.cause is Cause.CONFIG_ERROR


class Explosive:
    def __reduce__(self) -> Any:
        return exec, ("raise RuntimeError('opened')",)


@pytest.mark.parametrize("data", [b"", b"no header", b"[]\nrest", b"\n", b"\xff\xfe\n"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Permanent, match="header"):
        unpack(data)


def test_a_missing_package_is_named_with_both_versions(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "lib"
    install(target, "missing_lib", "2.7")
    module = make("missing_lib", "def f():\n    return 1\n", directory=target)
    data = pack(module.f, subject="f")
    assert packages(data) == {"missing_lib": "2.7"}
    monkeypatch.delitem(sys.modules, "missing_lib")
    (target / "missing_lib.py").unlink()
    sys.path.remove(str(target))
    importlib.invalidate_caches()
    by_value.version_of.cache_clear()
    with pytest.raises(Permanent, match=r"'missing_lib': 2\.7 where it was submitted, not installed here"):
        unpack(data)


def test_a_package_that_differs_is_named_with_both_versions(make: Make, tmp_path: Path) -> None:
    target = tmp_path / "lib"
    install(target, "other_lib", "2.7")
    module = make("other_lib", "def f():\n    return 1\n", directory=target)
    data = pack(module.f, subject="f")
    del module.f
    with pytest.raises(Permanent, match=r"'other_lib': 2\.7 where it was submitted, 2\.7 here"):
        unpack(data)


def test_a_package_that_is_only_a_global_is_stamped() -> None:
    assert packages(pack(lambda: click.echo("x"), subject="f")) == {"click": by_value.version_of("click")}
