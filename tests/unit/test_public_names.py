"""``from dispatcher import …``: every public name, quickly."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dispatcher


def test_every_public_name_is_there_and_listed() -> None:
    for name in dispatcher.__all__:
        assert getattr(dispatcher, name) is not None
    assert set(dispatcher.__all__) <= set(dir(dispatcher))
    assert list(dispatcher.__all__) == sorted(dispatcher.__all__)
    assert dispatcher.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        dispatcher.nothing  # noqa: B018


def test_every_error_that_users_catch_is_public() -> None:
    from dispatcher import errors

    public = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.DispatcherError)
    }
    assert public <= set(dispatcher.__all__)


def test_each_package_of_the_wheel_says_that_it_is_typed() -> None:
    """Without ``py.typed``, an author's subclass is one of Any; ``tests/fresh`` looks with mypy."""
    root = Path(dispatcher.__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert [name for name in packages if not (root / name / "py.typed").is_file()] == []


SAME = """
import dispatcher.flows.flow, dispatcher.flows.task, dispatcher.runs.context, dispatcher.client.client
from dispatcher import flow, task, context
assert callable(flow) and callable(task), (flow, task)
assert type(context).__name__ == "Context", context
assert dispatcher.flow is flow
"""

QUICK = """
import sys
import dispatcher
heavy = {"redis", "celery", "kombu", "pydantic", "rich", "dask", "distributed", "cloudpickle", "asyncio"}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(("code", "output"), [(SAME, ""), (QUICK, "[]\n")], ids=["names win over modules", "quick"])
def test_in_a_new_process(code: str, output: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, output), done.stderr
