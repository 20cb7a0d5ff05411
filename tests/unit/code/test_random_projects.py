"""A flow returns in a worker what it returns in its program, whatever its project looks like."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from hypothesis import given, settings

from tests.conftest import PYTHON
from tests.integration.workers import ROOT
from tests.unit.code.projects import write
from tests.unit.code.random_projects import Project, projects

#: Packs the flow's bundle, and prints what the flow returns in the program.
_PROGRAM = """
import sys
from importlib import import_module
from pathlib import Path
from dispatcher.code.bundles import Bundler
from dispatcher.code.cache import BundleCache
from dispatcher.serialization.pickles import modules, pack
from dispatcher.support.interpreter import PYTHON

module = import_module(sys.argv[1])
data = pack(module.value, subject="the flow")
bundle = Bundler(python=PYTHON, limit=2**20).bundle(modules(data))
Path(sys.argv[2]).write_bytes(data)
Path(sys.argv[3]).write_bytes(bundle.data)
print(module.value(3))
"""

#: Prints what it returns in another process, as a worker's, which never saw the project.
_WORKER = """
import sys
from hashlib import sha256
from pathlib import Path
from dispatcher.code.activation import BundleImporter
from dispatcher.code.cache import BundleCache
from dispatcher.serialization import unpack
from dispatcher.support.interpreter import PYTHON

archive = Path(sys.argv[2]).read_bytes()
digest = sha256(archive).hexdigest()
BundleImporter(BundleCache(Path("cache")), PYTHON).enter([digest], {digest: archive}.__getitem__)
print(unpack(Path(sys.argv[1]).read_bytes())(3))
"""


def _run(program: str, *arguments: str, cwd: Path, path: str) -> tuple[str, str]:
    done = subprocess.run(
        [PYTHON, "-c", program, *arguments],
        cwd=cwd, env={"PYTHONPATH": path}, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout, done.stderr


@settings(max_examples=15, print_blob=True)
@given(projects())
def test_it_returns_the_same_elsewhere(project: Project) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        source, worker = write(place / "project", project.files), place / "worker"
        worker.mkdir()
        flow, bundle = str(place / "flow"), str(place / "bundle")
        here, problem = _run(_PROGRAM, project.start, flow, bundle, cwd=source, path=str(ROOT))
        if "partially initialized module" in problem or "cannot import name" in problem:
            return  # the program can't import it either
        assert here, problem
        source.rename(place / "moved")
        there, problem = _run(_WORKER, flow, bundle, cwd=worker, path=str(ROOT))
        assert there == here, f"{problem}\n{project}"
