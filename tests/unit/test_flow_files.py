"""Flows that are stored with their project and opened elsewhere, without a record: each in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dispatcher.code.archive import describe
from dispatcher.serialization import pickles
from tests.integration.workers import ROOT
from tests.unit.code.projects import write

PROJECT = {
    "etl/__init__.py": "",
    "etl/flows.py": (
        "from pathlib import Path\n"
        "from dispatcher import flow\n"
        "from . import prices\n"
        "@flow\n"
        "def total(count):\n"
        "    from .late import margin\n"
        "    import beside_etl\n"
        "    factor = int((Path(__file__).parent / 'factor.txt').read_text())\n"
        "    return count * prices.PRICE * factor + margin() + beside_etl.MORE\n"
    ),
    "etl/prices.py": "PRICE = 5\n",
    "etl/late.py": "def margin():\n    return 100\n",
    "etl/factor.txt": "2",
    "etl/hooks.py": "def begin():\n    print('begun by', __name__)\ndef end():\n    print('ended by', __name__)\n",
    "beside_etl.py": "MORE = 1000\n",
    "callbacks_only.py": "def begin():\n    print('begun by', __name__)\n",
}
TOTAL = 1130  #: of 3


def python(program: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory, which is first on its path."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER__")}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env={**environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def printed(program: str, *arguments: str, cwd: Path, **variables: str) -> str:
    done = python(program, *arguments, cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The project's directory."""
    return write(tmp_path / "home", PROJECT)


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A directory that has nothing of the project."""
    return write(tmp_path / "away", {"readme.txt": ""})


SAVE = "import sys; from etl.flows import total; total.save(sys.argv[1])"
LOAD = "import sys; from dispatcher import Flow; print(Flow.load(sys.argv[1])(3))"


def test_a_saved_flow_brings_its_project_to_another_program(home: Path, away: Path) -> None:
    file = str(away / "total.flow")
    printed(SAVE, file, cwd=home)
    (home / "etl" / "prices.py").write_text("PRICE = 0\n")
    assert printed(LOAD, file, cwd=away) == str(TOTAL)
    bundle = pickles.bundle_in(Path(file).read_bytes())
    assert bundle is not None
    assert sorted(describe(bundle).modules) == ["beside_etl", "etl"]


def test_a_program_with_another_version_of_the_project_is_told(home: Path, away: Path) -> None:
    file = str(away / "total.flow")
    printed(SAVE, file, cwd=home)
    (home / "etl" / "late.py").write_text("def margin():\n    return 0\n")
    done = python(LOAD, file, cwd=home)
    assert "total.flow: its module 'etl' isn't that of this process" in done.stderr
    assert "etl/late.py differs" in done.stderr


KEEP = """
from pathlib import Path
from dispatcher import LocalStorage
from dispatcher.code import bundles
from etl.flows import total
bundles.LOOK_AGAIN_AFTER = 0.0
print(*{LocalStorage("etl").add_flow(total) for _ in range(3)})
sizes = set()
for _ in range(3):
    total.save("etl/total.saved")
    sizes.add(Path("etl/total.saved").stat().st_size)
print(*sizes)
"""


def test_flows_that_are_stored_in_the_project_are_not_part_of_it(home: Path) -> None:
    location, size = printed(KEEP, cwd=home).splitlines()
    assert len(location.split()) == len(size.split()) == 1


def test_unpacked_files_of_a_program_end_with_it(home: Path, away: Path) -> None:
    printed(SAVE, str(away / "total.flow"), cwd=home)
    temporary = away / "tmp"
    temporary.mkdir(mode=0o700)
    printed(LOAD, str(away / "total.flow"), cwd=away, TMPDIR=str(temporary))
    assert list(temporary.iterdir()) == []


STORE = """
import sys
from dispatcher import LocalStorage
from etl.flows import total
print(LocalStorage(sys.argv[1]).add_flow(total))
"""
RUN = """
import json, sys
from dispatcher import LocalEnvironment, LocalStorage
print(LocalStorage(sys.argv[1]).get_env_runner(sys.argv[2])({"DISPATCHER__PARAMETERS": '{"count": 3}'}))
print(LocalEnvironment().execute(LocalStorage(sys.argv[1]), sys.argv[2], parameters={"count": 3}))
"""


def test_a_local_storage_brings_it_to_a_runner_and_to_execute(home: Path, away: Path) -> None:
    location = printed(STORE, str(away / "kept"), cwd=home)
    assert (away / "kept").stat().st_mode & 0o777 == 0o700
    assert len(list((away / "kept").iterdir())) == 1
    temporary = away / "tmp"
    temporary.mkdir(mode=0o700)
    answers = printed(RUN, str(away / "kept"), location, cwd=away, TMPDIR=str(temporary))
    assert answers.split() == [str(TOTAL), str(TOTAL)]
    assert list(temporary.iterdir()) == []


def test_a_runner_in_a_program_with_other_modules_of_these_names_runs_what_was_stored(home: Path, away: Path) -> None:
    location = printed(STORE, str(away / "kept"), cwd=home)
    write(away, {"etl/__init__.py": "", "etl/flows.py": "", "beside_etl.py": "MORE = 0"})
    done = python(RUN, str(away / "kept"), location, cwd=away)
    assert done.stdout.split() == [str(TOTAL)]
    assert "isn't that of this process" in done.stderr


ADD_TO_IMAGE = """
import json, sys
from pathlib import Path
from dispatcher import DockerStorage
from etl.flows import total
storage = DockerStorage(directory=sys.argv[1])
location = storage.add_flow(total)
for path, data in storage.sealed.items():
    Path(path).write_bytes(data)
print(location)
"""
IN_IMAGE = "import sys; from dispatcher.storage.docker.in_image import main; sys.exit(main(sys.argv[1:]))"


def test_an_image_has_the_bundle_and_its_programs_import_from_it(home: Path, away: Path) -> None:
    import cloudpickle

    location = printed(ADD_TO_IMAGE, str(away), cwd=home)
    job = json.dumps({"cloudpickle": cloudpickle.__version__, "locations": [location]})
    printed(IN_IMAGE, "check", job, cwd=away)
    answer = away / "answer"
    printed(IN_IMAGE, "run", location, str(answer), cwd=away, DISPATCHER__PARAMETERS='{"count": 3}')
    line, _, body = answer.read_bytes().partition(b"\n")
    assert (json.loads(line)["flow"], body) == ("returned", b"1130")


DIRECT = "import sys; from dispatcher.runner.direct import main; sys.exit(main())"
DESCRIBE = """
import json, sys
from pathlib import Path
from backends.container.direct_execution import DirectExecution, _job
from dispatcher import KubernetesJobEnvironment, LocalStorage, Settings
import {module}
storage = LocalStorage(sys.argv[1])
from etl.flows import total
location = storage.add_flow(total)
environment = KubernetesJobEnvironment(on_start={module}.begin)
execution = DirectExecution(storage=storage.to_json(), location=location, parameters={{"count": 3}})
print(_job(environment, execution, Settings.load(), limit=10**6))
"""


@pytest.mark.parametrize("module", ["etl.hooks", "callbacks_only"])
def test_a_direct_execution_has_the_bundles_of_flow_and_callbacks(home: Path, away: Path, module: str) -> None:
    job = printed(DESCRIBE.format(module=module), str(away / "kept"), cwd=home)
    assert ("bundle" in json.loads(job)) is (module == "callbacks_only")
    secrets = away / "secrets.json"
    secrets.write_text(json.dumps({"DISPATCHER__RUN__DIRECT": job}))
    output = printed(DIRECT, cwd=away, DISPATCHER__RUN__SECRETS_FILE=str(secrets))
    assert output == f"begun by {module}"


BY_NAME = """
import logging
logging.basicConfig(format="%(message)s")
from dispatcher import ModuleStorage
from etl.flows import total
for _ in range(3):
    print(ModuleStorage().add_flow(total))
"""


def test_a_module_storage_says_once_that_a_module_is_only_in_a_project(home: Path) -> None:
    done = python(BY_NAME, cwd=home)
    assert done.stdout.split() == ["etl.flows:total"] * 3
    assert done.stderr.count("module etl.flows of a project") == 1
    assert "and not of an installed package; ModuleStorage sends no file: install the package" in done.stderr


SPECS = """
import json, sys
from dispatcher import LocalEnvironment, LocalStorage, ModuleStorage, Settings
from dispatcher.code.archive import describe
from dispatcher.code.bundles import bundler_for
from dispatcher.records.memory import open_memory
from dispatcher.runs.options import Options
from dispatcher.serialization import KeyRing
from dispatcher.submission.new_record import new_record
from dispatcher.submission.request import SubmitRequest
from dispatcher.submission.spec_builder import SpecBuilder
from etl import hooks
from etl.flows import total
import callbacks_only

settings, blobs = Settings.load(), open_memory().blobs
bundler = bundler_for(settings)
keys = KeyRing(KeyRing.generate())
builder = SpecBuilder(scope="", blobs=blobs, limits=settings.limits, key_id=keys.signing_key_id, bundler=bundler)
for storage in (ModuleStorage(), LocalStorage(sys.argv[1])):
    for begin in (hooks.begin, callbacks_only.begin):
        environment = LocalEnvironment(on_start=begin)
        request = SubmitRequest(flow=total, environment=environment, storage=storage, options=Options())
        template = builder.build(request, 0.0)
        for value in (hooks.Count(3), callbacks_only.Count(3)):
            spec = new_record(
                template, {"count": value}, keys=keys, blobs=blobs, bundler=bundler, limits=settings.limits
            ).spec
            print(json.dumps([list(describe(blobs.get(digest)).modules) for digest in spec.bundles]), *spec.requires)
"""


def test_no_bundle_hides_the_installed_package_of_a_module_storage(home: Path, away: Path) -> None:
    """Those of callbacks and parameters travel, but for the flow's own package, which is installed there."""
    source = "import etl.hooks\nclass Count(int): ...\ndef begin():\n    etl.hooks.begin()\n"
    write(home, {"callbacks_only.py": source, "etl/hooks.py": "class Count(int): ...\ndef begin(): ...\n"})
    output = printed(SPECS, str(away / "kept"), cwd=home).splitlines()
    only, package, both = '["callbacks_only"]', '["beside_etl", "etl"]', '["beside_etl", "callbacks_only", "etl"]'
    assert output[:4] == ["[]", *[f"[{only}] bundle"] * 3]
    assert output[4:] == [f"[{package}] bundle", f"[{package}, {both}] bundle", *[f"[{both}] bundle"] * 2]
