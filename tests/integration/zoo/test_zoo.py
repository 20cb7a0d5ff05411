"""Each kind of object and layout, wherever its flow stands, however it travels, wherever it runs: works or is refused.

Each standing is one program, which submits a run per cell. Then its project is moved away, and one worker runs
everything. ``ZOO=all`` tries every standing everywhere; otherwise Dask and containers are tried for a script and a
package.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PYTHON, Server
from tests.integration.workers import KEYS, ROOT, Worker
from tests.integration.zoo import driver
from tests.integration.zoo.callables import CALLABLES
from tests.integration.zoo.classes import CLASSES
from tests.integration.zoo.enums import ENUMS
from tests.integration.zoo.layouts import LAYOUTS
from tests.integration.zoo.specimen import Specimen, definitions
from tests.integration.zoo.state import STATE
from tests.waiting import wait_until

#: Whether every standing is tried everywhere, also with pools of processes.
ALL = os.environ.get("ZOO") == "all"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800 if ALL else 600)]

SPECIMENS = (*ENUMS, *CALLABLES, *CLASSES, *STATE, *LAYOUTS)

_IMPORTED = "import {module}\nif __name__ == '__main__':\n    import zoo_driver; zoo_driver.drive(vars({module}))\n"
_CELLS = """
import linecache, pathlib
import __main__
for number, cell in enumerate(pathlib.Path("notebook.txt").read_text().split("# %%")):
    name = f"<ipython-input-{number}>"
    linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
    exec(compile(cell, name, "exec"), __main__.__dict__)
"""


@dataclass(frozen=True)
class Standing:
    """A place for flows.

    Attributes:
        command: arguments of the interpreter; ``{source}`` is the module's source.
        module: the path of the flows' module, from the project's directory.
        main: a program that imports it; empty if it is the program itself.
        root: the directory on the import path.
        everywhere: whether Dask and containers are tried by default.
    """

    command: tuple[str, ...]
    module: str
    main: str = ""
    root: str = "."
    everywhere: bool = False
    reads_input: bool = False


STANDINGS: Mapping[str, Standing] = {
    "script": Standing(("script.py",), "script.py", everywhere=True),
    "module": Standing(("main.py",), "animals.py", _IMPORTED.format(module="animals")),
    "package": Standing(("main.py",), "etl/animals.py", _IMPORTED.format(module="etl.animals"), everywhere=True),
    "src": Standing(("main.py",), "src/etl/animals.py", _IMPORTED.format(module="etl.animals"), root="src"),
    "python-m": Standing(("-m", "etl.animals"), "etl/animals.py"),
    "command": Standing(("-c", "{source}"), "source.txt"),
    "stdin": Standing(("-",), "source.txt", reads_input=True),
    "cells": Standing(("-c", _CELLS), "notebook.txt"),
}


def specimens_of(standing: str) -> list[Specimen]:
    """The rows that are tried there."""
    pools = standing == "script" or ALL  # they take most of the time
    return [specimen for specimen in SPECIMENS if specimen.stands_in(standing) and (pools or not specimen.pools)]


def together_of(standing: str) -> list[tuple[str, str]]:
    """The cells that are tried in one run with others: those that aren't refused."""
    return [
        (specimen.name, way)
        for specimen in specimens_of(standing)
        for way in specimen.ways
        if not {way, "global"} & specimen.refusals(standing).keys()
    ]


def places_of(standing: str) -> tuple[str, ...]:
    everywhere = STANDINGS[standing].everywhere or ALL
    return ("local", "dask", "container") if everywhere else ("local",)


class Program:
    """A program of the zoo in its project, and what became of its cells."""

    def __init__(self, directory: Path, standing: str, server: str) -> None:
        self.standing = standing
        self._directory = directory
        self._project = directory / "project"
        self._write_project()
        tools = directory / "site-packages"
        tools.mkdir()
        shutil.copy(driver.__file__, tools / "zoo_driver.py")
        service = directory / "service"
        service.mkdir()
        plan = directory / "plan.json"
        plan.write_text(json.dumps(self._plan(service)))
        place = STANDINGS[standing]
        source = (self._project / place.module).read_text()
        roots = (self._project / place.root, tools, ROOT)
        environ = {
            **os.environ,
            "DISPATCHER__URL": server,
            "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
            "PYTHONPATH": os.pathsep.join(map(str, roots[1:] if place.root == "." else roots)),
            "ZOO_PLAN": str(plan),
        }
        arguments = [source if argument == "{source}" else argument for argument in place.command]
        with ExitStack() as stack:
            source_file: Any = subprocess.DEVNULL
            if place.reads_input:
                source_file = stack.enter_context((self._project / place.module).open())
            log = stack.enter_context((directory / "log").open("wb"))
            self._process = subprocess.Popen(
                [PYTHON, *arguments], cwd=self._project, env=environ, stdin=source_file, stdout=log, stderr=log
            )

    def move_away_once_submitted(self) -> None:
        """Wait until all runs are submitted, and move the project, so that nothing finds it where it was."""
        wait_until(lambda: self._is_over() or (self._directory / "submitted").exists(), "submits", timeout=120)
        self._project.rename(self._directory / "moved")

    @functools.cached_property
    def outcomes(self) -> dict[tuple[str, str, str], dict[str, str]]:
        """Wait for its end, and return the outcome of each cell, by place, specimen and way."""
        wait_until(self._is_over, "the program's end", timeout=500)
        file = self._directory / "outcomes.json"
        assert file.exists(), (self._directory / "log").read_text()
        return {(cell["place"], cell["name"], cell["way"]): cell for cell in json.loads(file.read_text())}

    def end(self) -> None:
        """Kill it if it still runs, and its containers."""
        self._process.kill()
        self._process.wait()
        for file in (self._directory / "service").glob("*.json"):
            file.with_suffix(".deleted").touch()

    def _is_over(self) -> bool:
        return self._process.poll() is not None

    def _write_project(self) -> None:
        place = STANDINGS[self.standing]
        specimens = specimens_of(self.standing)
        source = definitions(specimens, dict(together_of(self.standing)))
        if not place.main:
            source += "\nif __name__ == '__main__':\n    import zoo_driver; zoo_driver.drive(globals())\n"
        if self.standing == "cells":
            source = source.replace("\n@flow\ndef global_", "\n# %%\n@flow\ndef global_")
        files: dict[str, str | bytes] = {"pyproject.toml": "[project]\nname = 'zoo'\nversion = '1'\n"}
        package = (Path(place.module).parent.as_posix() + "/").removeprefix("./")
        if package:
            files[f"{package}__init__.py"] = ""
        for specimen in specimens:
            files |= {f"{place.root}/{name}": content for name, content in specimen.files.items()}
            files |= {f"{package}{name}": content for name, content in specimen.beside.items()}
        files |= {place.module: source} | ({"main.py": place.main} if place.main else {})
        for name, content in files.items():
            path = self._project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def _plan(self, service: Path) -> dict[str, Any]:
        specimens = specimens_of(self.standing)
        cells = [(specimen.name, way) for specimen in specimens for way in specimen.ways]
        return {
            "places": places_of(self.standing),
            "cells": cells,
            "together": together_of(self.standing),
            "not_on_dask": [specimen.name for specimen in specimens if specimen.pools or specimen.not_on_dask],
            "service": str(service),
            "submitted": str(self._directory / "submitted"),
            "outcomes": str(self._directory / "outcomes.json"),
        }


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Program]]:
    """All programs, submitted and moved away, and a worker that runs what they have submitted."""
    directory = tmp_path_factory.mktemp("zoo")
    with Server.temporary() as server:
        started: dict[str, Program] = {}
        worker = None
        try:
            for standing in STANDINGS:
                place = directory / standing
                place.mkdir()
                started[standing] = Program(place, standing, server.url)
            for program in started.values():
                program.move_away_once_submitted()
            worker = Worker(server.url, directory, backends=["local", "remote", "fake"], concurrency=2)
            yield started
        finally:
            for program in started.values():
                program.end()
            if worker is not None:
                worker.end()


CASES = [
    pytest.param(standing, specimen, id=f"{standing}-{specimen.name}")
    for standing in STANDINGS
    for specimen in specimens_of(standing)
]


@pytest.mark.parametrize(("standing", "specimen"), CASES)
def test_it_works_or_is_refused(programs: Mapping[str, Program], standing: str, specimen: Specimen) -> None:
    cells = programs[standing].outcomes
    wrong = []
    for way in specimen.ways:
        refusals = specimen.refusals(standing)
        for place in places_of(standing):
            if (place, specimen.name, way) not in cells:
                assert place != "local"
                continue
            cell = cells[place, specimen.name, way]
            problem = _problem(cell, refusals.get(way))
            if problem:
                wrong.append(f"{way}, {place}: {problem}\n{cell['details']}")
    assert not wrong, "\n".join(wrong)


def _problem(cell: Mapping[str, str], pattern: str | None) -> str:
    """Why a cell isn't as it should be; empty if it is."""
    if pattern is None:
        return "" if cell["outcome"] == "same" else f"{cell['outcome']}: {cell['told']}"
    if cell["outcome"] not in {"refused", "failed"}:
        return f"it wasn't refused: {cell['outcome']} {cell['told']}"
    if cell["way"] != "result" and cell["outcome"] != "refused":
        return f"it was refused too late: {cell['told']}"
    return "" if re.search(pattern, cell["told"]) else f"its message doesn't match {pattern!r}: {cell['told']}"


def test_every_program_has_other_names() -> None:
    """Specimens share one module, so that none may hide another's names."""
    owners: dict[str, str] = {}
    for specimen in SPECIMENS:
        names: dict[str, Any] = {}
        for line in specimen.text.splitlines():
            if definition := re.match(r"(?:class|(?:async )?def) (\w+)|(\w+) = ", line):
                names[definition[1] or definition[2]] = None
        for name in names:
            assert owners.setdefault(name, specimen.name) == specimen.name or name == "_", name
