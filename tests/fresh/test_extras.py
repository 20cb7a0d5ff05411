"""The wheel with each extra alone, in a fresh environment: a worker starts, a flow runs, and the extra's page is true.

Whoever installs one extra gets no package of another by luck. Slow, as it installs from the package index; opted into
with ``FRESH_CLONE=1``. A new extra joins by itself, and needs a program in ``programs/`` that does what its page says.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher import __version__
from tests.fresh.place import PROGRAMS, Place

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = sorted(
    set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
    - {"dev"}
)

#: Extras that contain others, whose programs then work too.
CONTENTS = {
    "dask-kubernetes": ("dask", "kubernetes"),
    "dask-operator": ("dask", "kubernetes", "dask-kubernetes"),
}

#: What an author writes, with the types of the interfaces.
SUBCLASSES = """
from backends.base import InProcess
from dispatcher.environments import Environment
from dispatcher.settings import SettingsGroup
from workers import identity

class Mine(InProcess):
    name = "mine"

class MyEnvironment(Environment):
    backend = "mine"

class MySettings(SettingsGroup):
    size: int = 1

environment: Environment = MyEnvironment(labels=["x"])
"""

pytestmark = [
    pytest.mark.fresh,
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("FRESH_CLONE"), reason="slow: set FRESH_CLONE=1; .ci/run does"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built from this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, ROOT],
        check=True,
        timeout=300,
    )
    [built] = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=["", *EXTRAS], ids=lambda extra: extra or "none")
def extra(request: pytest.FixtureRequest) -> str:
    """The one that is installed; empty: none."""
    return str(request.param)


@pytest.fixture(scope="module")
def place(wheel: Path, extra: str) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="dsp-") as home:
        place = Place(Path(home), wheel, extra)
        try:
            yield place
        finally:
            place.leave()


def test_its_packages_fit_each_other(place: Place) -> None:
    place.check()


def test_the_command_starts(place: Place) -> None:
    version = place.run("dispatcher", "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert __version__ in version.stdout
    assert place.run("dispatcher", "--help").returncode == 0
    assert place.run("python", "-P", "-W", "error", "-c", "import dispatcher").stderr == ""


@pytest.mark.parametrize("extra", ["testing"], indirect=True)
def test_a_type_checker_sees_the_interfaces_of_authors(place: Place, tmp_path: Path) -> None:
    """All packages of the wheel are marked as typed: else their classes are Any to mypy."""
    (tmp_path / "mine.py").write_text(SUBCLASSES)
    done = place.mypy(tmp_path / "mine.py")
    assert done.returncode == 0, done.stdout
    (tmp_path / "mine.py").write_text(SUBCLASSES + "\nreveal_type(Mine().poll([]))\n")
    assert "list[backends.base.Observation]" in place.mypy(tmp_path / "mine.py").stdout


def test_a_worker_runs_flows_and_does_what_the_page_of_the_extra_says(
    place: Place, extra: str, server_url: str
) -> None:
    """Use of another extra is an error that names it, or a part of it that is missing."""
    with place.worker(server_url) as worker:
        done = place.program("any_flow", server_url)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\nthe worker:\n{place.log}"
        for name in EXTRAS:
            done = place.program(_program(name), server_url)
            printed = f"{done.stdout}{done.stderr}\nthe worker:\n{place.log}"
            if name == extra or name in CONTENTS.get(extra, ()):
                assert done.returncode == 0, printed
            else:
                assert done.returncode != 0, f"{name} isn't installed, and works all the same:\n{printed}"
                missing = (name, *CONTENTS.get(name, ()))
                assert any(f"flow-dispatcher[{part}]" in done.stderr for part in missing), printed
        assert worker.poll() is None, place.log


def test_each_extra_has_a_program() -> None:
    assert [name for name in EXTRAS if not (PROGRAMS / f"{_program(name)}.py").exists()] == []


def _program(extra: str) -> str:
    return f"extra_{extra.replace('-', '_')}"
