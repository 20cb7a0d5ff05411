"""DockerStorage on a real Docker engine and a real registry with a password, with the project's own runner image."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import (
    Dispatcher,
    DockerStorage,
    FlowFailed,
    InvalidInput,
    LocalEnvironment,
    SealBroken,
    State,
    context,
    flow,
)
from dispatcher.flows.flow import Flow
from dispatcher.settings import Settings
from dispatcher.storage.answer import ChildDied
from dispatcher.storage.base import from_json
from dispatcher.testing.modules import project
from dispatcher.testing.storages import PROJECT, TOTAL
from tests.conftest import PYTHON
from tests.integration.docker_engine import (
    Registry,
    base_image,
    build_runner,
    default_base,
    docker,
    registry,
    runner_image,
)
from tests.integration.workers import KEYS, ROOT, Worker

__all__ = ["default_base", "registry", "runner_image"]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(590),
    pytest.mark.filterwarnings("ignore:No live worker"),
]


@flow
def look(path: str = "/data") -> dict[str, Any]:
    print("seen from inside")  # noqa: T201 - what it prints is what is tested
    return {
        "uid": os.getuid(),
        "variable": os.environ.get("GREETING"),
        "file": Path(path).read_text(),
        "settings": sorted(name for name in os.environ if name.startswith("DISPATCHER__")),
        "given": os.environ.get("GIVEN"),
    }


@flow
def fails() -> None:
    raise LookupError("inside")


@flow
def dies() -> None:
    os._exit(3)


ANSWER = "/tmp/dispatcher-answer"


class Trap:
    """Creates a file when it is opened, with the opening process's variables."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        held = "os.environ.get('DISPATCHER__SIGNING_KEYS', 'none')"
        return exec, (f"import os\nwith open({self.file!r}, 'a') as file: file.write({held})",)


class TrapError(Exception):
    """The same as an exception."""

    def __init__(self, file: str) -> None:
        super().__init__("a trap")
        self.file = file

    def __reduce__(self) -> Any:
        return Trap(self.file).__reduce__()


@flow
def means_harm(how: str, file: str) -> Any:
    """Forge the answer in every way, which a flow can because it shares the process with the answer's writer."""
    place = Path(ANSWER)
    opened = pickle.dumps(Trap(file))
    header = json.dumps({"python": ".".join(map(str, sys.version_info[:2])), "packages": {}}).encode() + b"\n"
    files = {
        "writes a pickle": header + opened,
        "writes a sealed pair": header + pickle.dumps((True, Trap(file))),
        "writes an answer": b'{"flow": "returned", "codec": "pickle"}\n' + header + opened,
        "leaves brackets": b'{"flow": "returned", "codec": "json"}\n' + b"[" * 1_000_000,
    }
    match how:
        case "returns":
            return Trap(file)
        case "raises":
            raise TrapError(file)
        case "leaves a link":
            place.symlink_to("/etc/passwd")
        case "leaves a folder":
            place.mkdir()
        case "leaves a pipe":
            os.mkfifo(place)
        case "leaves a terabyte":
            place.touch()
            os.truncate(place, 2**40)
        case _ if how in files:
            place.write_bytes(files[how])
    os._exit(0)


#: How the run ends, by what its flow did.
HARM = {
    "returns": State.SUCCEEDED,
    "raises": State.FAILED,
    "writes a pickle": State.FAILED,
    "writes a sealed pair": State.FAILED,
    "writes an answer": State.SUCCEEDED,
    "leaves a link": State.FAILED,
    "leaves a folder": State.FAILED,
    "leaves a pipe": State.FAILED,
    "leaves a terabyte": State.FAILED,
    "leaves brackets": State.FAILED,
    "nothing": State.FAILED,
}


@pytest.fixture
def made() -> Iterator[list[str]]:
    """Images to remove."""
    names: list[str] = []
    yield names
    for name in names:
        docker("rmi", "-f", name, check=False)


def storage_of(runner_image: str, **options: Any) -> DockerStorage:
    return DockerStorage(base_image=runner_image, local_image=True, **options)


def built(storage: DockerStorage, made: list[str], *flows: Flow[..., Any]) -> DockerStorage:
    for target in flows:
        storage.add_flow(target)
    storage.build()
    made += [storage.name, str(storage.image)]
    return storage


def test_built_once_the_flow_runs_in_its_container(
    runner_image: str,
    made: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps(KEYS))
    monkeypatch.setenv("dispatcher__submit_within", "9")  # our settings are read in any case
    file = tmp_path / "data"
    file.write_text("some data")
    storage = storage_of(runner_image, env_vars={"GREETING": 'a "b" $c'}, files={str(file): "/data"})
    built(storage, made, look)
    assert storage.image == f"look:{storage.image_tag}"
    again = from_json(json.loads(json.dumps(storage.to_json())))
    result = LocalEnvironment().execute(again, storage.flows["look"], env={"GIVEN": "by execute"})
    assert result == {
        "uid": 10001,
        "variable": 'a "b" $c',
        "file": "some data",
        "settings": ["DISPATCHER__EMBEDDED", "DISPATCHER__PARAMETERS"],
        "given": "by execute",
    }
    assert "seen from inside" in capfd.readouterr().out


def test_an_image_holds_the_flows_project(runner_image: str, made: list[str], tmp_path: Path) -> None:
    with project(tmp_path, PROJECT):
        storage = built(storage_of(runner_image), made, importlib.import_module("orders_to_store.flows").total)
    assert LocalEnvironment().execute(storage, storage.flows["total"], parameters={"count": 3}) == TOTAL


def test_how_a_flow_ends_in_its_container(runner_image: str, made: list[str]) -> None:
    storage = built(storage_of(runner_image), made, fails, dies)
    with pytest.raises(LookupError, match="inside"):
        LocalEnvironment().execute(storage, storage.flows["fails"])
    with pytest.raises(ChildDied, match="exit code 3"):
        LocalEnvironment().execute(storage, storage.flows["dies"])


@pytest.mark.row(34)
def test_a_worker_opens_nothing_that_a_container_made(
    runner_image: str, made: list[str], server_url: str, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Neither does a client with that setting; one without it opens it in its own process only."""
    storage = built(storage_of(runner_image), made, means_harm, look)
    start_worker(concurrency=2)
    file = tmp_path / "opened"
    settings = Settings.load(url=server_url, signing_keys=json.dumps(KEYS))
    with Dispatcher(settings=settings) as client:
        runs = {
            how: client.submit(means_harm, {"how": how, "file": str(file)}, storage=storage, environment=environment)
            for environment in [LocalEnvironment(on_exit=what_it_sees)]
            for how in HARM
        }
        sound = client.submit(look, {"path": "/etc/hostname"}, storage=storage)
        client.wait([*runs.values(), sound], timeout=300)
        assert {how: run.state for how, run in runs.items()} == HARM
        assert sound.result(plain=True)["uid"] == 10001
        for how, run in runs.items():
            assert run.exception(plain=True) is None or how not in {"returns", "writes an answer"}
            with pytest.raises((InvalidInput, FlowFailed)):
                run.result(plain=True)
        error = runs["raises"].exception(plain=True)
        assert error is not None
        assert "TrapError: a trap" in str(error)
        assert "in means_harm" in error.traceback
        assert [line.text for line in runs["raises"].logs()][-1:] == ["on_exit sees RaisedInside"]
        assert not file.exists()
        with pytest.raises(FlowFailed):
            runs["raises"].result()
        assert file.read_text() == "none"  # opened here, in a program without the worker's keys
        runs["returns"].result()
        assert file.read_text() == "nonenone"


def what_it_sees() -> None:
    print("on_exit sees", type(context.exception).__name__)  # noqa: T201 - a flow's callback


def test_another_flow_in_the_image_is_not_opened(runner_image: str, made: list[str]) -> None:
    """The tag was built again after the submit."""
    storage = built(storage_of(runner_image, image_name="retagged", image_tag="1"), made, fails)
    location = storage.flows["fails"]
    again = storage_of(runner_image, image_name="retagged", image_tag="1")
    built(again, made, flow(name="fails")(look.fn))
    with pytest.raises(SealBroken, match="holds another flow than was submitted"):
        LocalEnvironment().execute(storage, location)


def test_tags_follow_the_content(runner_image: str, made: list[str]) -> None:
    first = built(storage_of(runner_image), made, look).image
    assert built(storage_of(runner_image), made, look).image == first
    storage = built(storage_of(runner_image, env_vars={"A": "1"}), made, look)
    assert storage.image != first
    second = storage.image
    storage.add_flow(fails)
    storage.build()
    made.append(str(storage.image))
    assert storage.image not in {first, second}


def test_a_flow_that_does_not_load_there_is_no_image(runner_image: str) -> None:
    storage = storage_of(
        runner_image, python_dependencies=["cloudpickle==3.0.0"], build_kwargs={"network_mode": "host"}
    )
    storage.add_flow(look)
    with pytest.raises(InvalidInput, match=r"doesn't load in the image .*has cloudpickle 3\.0\.0.*'cloudpickle=="):
        storage.build()
    assert storage.image is None


def test_a_flow_of_another_python_is_no_image(runner_image: str) -> None:
    storage = storage_of(runner_image)
    path = storage.add_flow(look).partition("#")[0]
    storage.sealed[path] = storage.sealed[path].replace(b'"python":"3.', b'"python":"4.', 1)
    with pytest.raises(InvalidInput, match=r"doesn't load in the image .*sealed under Python 4\."):
        storage.build()


def test_a_failed_build_shows_its_last_lines(runner_image: str) -> None:
    storage = storage_of(runner_image, python_dependencies=["no-such-package-of-ours==9"])
    storage.add_flow(look)
    with pytest.raises(InvalidInput, match=r"the build failed:\n(.*\n)*.*no-such-package-of-ours"):
        storage.build()


def test_a_dockerfile_of_ones_own_keeps_its_user(
    runner_image: str, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").write_text("from the context")
    (tmp_path / "Dockerfile").write_text(f"FROM {runner_image}\nCOPY data /data\nUSER 4321\n")
    storage = built(DockerStorage(dockerfile="Dockerfile"), made, look)
    result = LocalEnvironment().execute(storage, storage.flows["look"])
    assert (result["uid"], result["file"]) == (4321, "from the context")


def test_a_missing_base_image_is_named() -> None:
    storage = DockerStorage(base_image="127.0.0.1:1/none:1")
    storage.add_flow(look)
    with pytest.raises(InvalidInput, match=r"base_image: 127\.0\.0\.1:1/none:1 can't be pulled|no Docker engine"):
        storage.build()


def test_a_registry_with_a_password(
    runner_image: str, registry: Registry, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is pushed with docker's own login, the pushed digest is run, and the password is stored nowhere else."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    storage = storage_of(
        runner_image, registry_url=f"{registry.address}/team", image_name="etl", env_vars={"GREETING": "x"}
    )
    storage.add_flow(fails)
    with pytest.raises(InvalidInput, match=r"push of .*/team/etl.* failed: .*docker login"):
        storage.build()
    assert storage.image is None
    for name, value in registry.login(tmp_path / "someone").items():
        monkeypatch.setenv(name, value)
    built(storage, made, fails)
    assert storage.image is not None
    assert storage.image.startswith(f"{registry.address}/team/etl@sha256:")
    assert registry.password not in json.dumps(storage.to_json()) + repr(storage)
    for name in list(made):
        docker("rmi", "-f", name, check=False)
    with pytest.raises(LookupError, match="inside"):  # pulled again, by its digest
        LocalEnvironment().execute(storage, storage.flows["fails"])


@flow
def packages() -> dict[str, Any]:
    import humanize

    import dispatcher

    return {
        "humanize": humanize.__file__,
        "dispatcher": str(Path(dispatcher.__file__).parent),
        "tool": shutil.which("dispatcher"),
        "pip": importlib.util.find_spec("pip") is not None,
        "build": Path("/opt/flow-build").exists(),
        "path": os.environ["PYTHONPATH"].split(":"),
    }


def test_packages_are_installed_where_the_image_has_no_pip(runner_image: str, made: list[str]) -> None:
    """In a stage of their own: the image gets the packages, but neither pip nor its files."""
    storage = storage_of(
        runner_image,
        python_dependencies=["humanize"],
        build_kwargs={"network_mode": "host"},
        env_vars={"PYTHONPATH": "/mine"},
    )
    built(storage, made, packages)
    result = LocalEnvironment().execute(storage, storage.flows["packages"])
    assert result["humanize"].startswith("/opt/flow-packages/site-packages/")
    assert result["dispatcher"].startswith("/opt/dispatcher/")
    assert result["path"] == ["/opt/flow-packages/site-packages", "/mine"]
    assert (result["pip"], result["build"]) == (False, False)


def test_on_the_default_image_our_own_wheel_is_installed(default_base: str, made: list[str]) -> None:
    """That image doesn't have the project, and no index needs to have this version."""
    storage = DockerStorage(python_dependencies=["humanize"], build_kwargs={"network_mode": "host"})
    built(storage, made, packages)
    result = LocalEnvironment().execute(storage, storage.flows["packages"])
    assert result["dispatcher"] == "/opt/flow-packages/site-packages/dispatcher"
    assert result["tool"] == "/opt/flow-packages/bin/dispatcher"
    assert not result["build"]


MODULE = """
    from dispatcher import DockerStorage, flow
    @flow(storage=DockerStorage(base_image={image!r}, local_image=True))
    def double(number: int) -> int:
        return 2 * number
    @flow
    def plain() -> None: ...
"""


def command(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [PYTHON, "-c", "from dispatcher.cli import main; main()", *arguments],
        capture_output=True, text=True, cwd=directory, env=environ, timeout=300, check=False,
    )  # fmt: skip


def test_the_command_builds_what_run_then_runs(runner_image: str, made: list[str], tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text(textwrap.dedent(MODULE.format(image=runner_image)))
    unbuilt = command(tmp_path, "--url", "memory://", "run", "sums:double", "-p", "number=4")
    assert unbuilt.returncode == 2
    assert "isn't built" in unbuilt.stderr
    done = command(tmp_path, "build", "sums:double", "--output", "built.json")
    assert done.returncode == 0, done.stderr
    image = done.stdout.strip()
    made.append(image)
    assert image.startswith("double:")
    assert json.loads((tmp_path / "built.json").read_text())["image"] == image
    ran = command(
        tmp_path, "--url", "memory://", "run", "sums:double", "-p", "number=4", "--storage", "built.json", "--quiet"
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "8"), ran.stderr
    plain = command(tmp_path, "build", "sums:plain")
    assert plain.returncode == 2
    assert "needs no build" in plain.stderr


def test_the_runner_image(runner_image: str) -> None:
    """It isn't run by root, works with a read-only root, and is small."""
    arguments = ["run", "--rm", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/home/flow", "--cap-drop", "ALL"]
    code = "import os; open(os.path.expanduser('~/x'), 'w'); open('/tmp/x', 'w'); print(os.getuid())"
    assert docker(*arguments, runner_image, "python3", "-c", code).stdout.strip() == "10001"
    assert json.loads(docker("image", "inspect", runner_image).stdout)[0]["Config"]["User"] == "10001:10001"
    by_itself = docker(*arguments, runner_image, check=False)
    assert by_itself.returncode == 2
    assert "only a backend can start this program" in by_itself.stderr
    size = int(docker("image", "inspect", "-f", "{{.Size}}", runner_image).stdout)
    base = docker("image", "inspect", "-f", "{{.Size}}", base_image()).stdout
    print(f"the runner image is {size / 2**20:.0f} MiB, {(size - int(base)) / 2**20:.0f} MiB of it ours")  # noqa: T201
    assert size - int(base) < 120 * 2**20


COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "tcc", "as", "ld", "rustc", "go", "make")


def test_the_runner_image_builds_nothing(runner_image: str) -> None:
    """No pip in any of its Pythons, no ensurepip in the standard library, and no compiler."""
    look = ["run", "--rm", "--user", "0", runner_image]
    for python in ("python3", "/opt/dispatcher/bin/python3", *_pythons(runner_image)):
        for module in ("pip", "ensurepip"):
            done = docker(*look, python, "-m", module, "--version", check=False)
            assert f"No module named {module}" in done.stderr, f"{python}: {done.stdout}{done.stderr}"
    search = " ".join(f"command -v {name};" for name in ("pip", "pip3", *COMPILERS))
    assert docker(*look, "sh", "-c", f"{search} true").stdout == ""
    assert docker(*look, "sh", "-c", "find / -xdev -name 'pip-*' -not -path '/proc/*'").stdout == ""


def _pythons(image: str) -> list[str]:
    return docker(
        "run", "--rm", image, "sh", "-c", "ls /usr/bin/python3 /usr/local/bin/python3 2>/dev/null; true"
    ).stdout.split()


def test_any_user_has_a_home_that_no_other_user_can_change(runner_image: str) -> None:
    """The image's user, a user that a cluster chose, and that one in a group of its own."""
    for user in ("10001:10001", "4321:0", "4321:4321"):
        done = docker("run", "--rm", "--user", user, runner_image, "sh", "-c", "stat -c %a ~; echo x > ~/x && cat ~/x")
        assert done.stdout.split() == ["1777", "x"], user


def test_its_base_is_pinned_by_a_digest(
    runner_image: str, registry: Registry, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in registry.login(tmp_path / "someone").items():
        monkeypatch.setenv(name, value)
    pushed = f"{registry.address}/base:1"
    docker("tag", base_image(), pushed)
    docker("push", pushed)
    digests = json.loads(docker("image", "inspect", "-f", "{{json .RepoDigests}}", pushed).stdout)
    pinned = next(digest for digest in digests if digest.startswith(registry.address))
    made += [pushed, pinned, "flow-dispatcher-runner:pinned"]
    build_runner("flow-dispatcher-runner:pinned", pinned)
    labels = json.loads(
        docker("image", "inspect", "-f", "{{json .Config.Labels}}", "flow-dispatcher-runner:pinned").stdout
    )
    assert labels["org.opencontainers.image.base.name"] == pinned
