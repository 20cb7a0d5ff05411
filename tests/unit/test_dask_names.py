"""A project's own packages that have Dask's names are told from Dask itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.executors.dask_names import refuse_imported, refuse_own
from tests.unit.code.projects import on_path, write


def test_the_installed_one_is_no_projects() -> None:
    refuse_imported()
    refuse_own({"etl", "dask_jobs"})


@pytest.mark.parametrize("file", ["dask.py", "distributed/__init__.py", "dask/__init__.py"])
def test_a_projects_own_is_refused(tmp_path: Path, file: str) -> None:
    name = file.partition("/")[0].removesuffix(".py")
    with on_path(write(tmp_path, {file: ""})):
        for refuse in (refuse_imported, lambda: refuse_own({name})):
            with pytest.raises(InvalidInput, match=rf"module of its own, '{name}' \({tmp_path}/{name}.*rename yours"):
                refuse()


def test_sources_of_dask_on_the_path_are_dask(tmp_path: Path) -> None:
    files = {"dask/__init__.py": "", "dask/highlevelgraph.py": "", "distributed/__init__.py": ""}
    with on_path(write(tmp_path, {**files, "distributed/comm/tcp.py": ""})):
        refuse_imported()
