"""DockerStorage without an engine: the build context, checks of arguments, and its JSON."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, DockerStorage, InvalidInput, LocalEnvironment, SealBroken, flow
from dispatcher.serialization import pack
from dispatcher.storage.base import NoFlowHere, from_json
from dispatcher.storage.docker import install
from dispatcher.storage.docker.image import STAGE, context, dockerfile
from dispatcher.storage.docker.storage import DIRECTORY
from dispatcher.storage.wheel import wheel as our_wheel
from tests.conformance.layers import in_its_image
from tests.unit.command import call

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dispatcher", "backends", "workers")


@flow
def etl() -> int:
    return 1


@flow(name="Other Flow!")
def other() -> int:
    return 2


def test_arguments_and_defaults() -> None:
    storage = DockerStorage("registry:5000/team", "base:1", None, ["pandas"], "name", "tag", {"A": "b"}, {"/a": "/b"})
    assert storage.name == "registry:5000/team/name:tag"
    assert storage.python_dependencies == ["pandas"]
    plain = DockerStorage()
    assert (plain.registry_url, plain.base_image, plain.local_image, plain.ignore_healthchecks) == (
        None,
        None,
        False,
        False,
    )
    with pytest.raises(InvalidInput, match="aren't known yet"):
        _ = plain.name


def test_the_dockerfile() -> None:
    storage = DockerStorage(
        python_dependencies=["pandas>=2", "polars"],
        env_vars={"GREETING": 'a "b" $c \\'},
        files={"/etc/hostname": "/etc/x y"},
    )
    path, _, digest = storage.add_flow(etl).partition("#")
    assert digest == hashlib.sha256(storage.sealed[path]).hexdigest()
    lines = dockerfile(storage.image_contents("sha256:1", "10001"), wheel="ours.whl").splitlines()
    first, last = lines[:4], lines[4:]
    assert first[:3] == ["FROM sha256:1 AS packages", "USER root", f"COPY build {STAGE}"]
    assert first[3].startswith(f'RUN ["python3", "{STAGE}/install.py", "ours.whl", "cloudpickle==')
    assert first[3].endswith('"pandas>=2", "polars"]')
    assert last[:6] == [
        "FROM sha256:1",
        "USER root",
        "COPY --from=packages /opt/flow-packages /opt/flow-packages",
        'COPY ["files/0", "/etc/x y"]',
        'ENV GREETING="a \\"b\\" \\$c \\\\"',
        "ENV PATH=/opt/flow-packages/bin:$PATH PYTHONPATH=/opt/flow-packages/site-packages${PYTHONPATH:+:$PYTHONPATH}",
    ]
    assert last[6] == f'COPY ["flows/0", "{path}"]'
    assert last[-1] == "USER 10001"
    assert "USER" not in dockerfile(storage.image_contents("b", ""), wheel="ours.whl").splitlines()[-1]


def test_nothing_is_installed_in_the_image_itself() -> None:
    storage = DockerStorage(python_dependencies=["pandas"])
    storage.add_flow(etl)
    _, image = dockerfile(storage.image_contents("b", ""), wheel="ours.whl").split("FROM b\n")
    assert "RUN" not in image
    assert STAGE not in image


def test_the_context_is_the_same_for_the_same_content(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("1")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inner").write_text("2")
    made = []
    for _ in range(2):
        storage = DockerStorage(files={str(file): "/data", str(folder): "/folder"})
        storage.add_flow(etl)
        made.append(context(storage.image_contents("b", "")))
        file.touch()
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0])) as archive:
        names = [name for name in archive.getnames() if not name.startswith("build/")]
        assert names == ["Dockerfile", "flows/0", "files/0", "files/1", "files/1/inner"]
    file.unlink()
    with pytest.raises(InvalidInput, match=r"files: .*data: No such file"):
        context(storage.image_contents("b", ""))


def test_the_context_holds_the_installer() -> None:
    """An image may have nothing but Python, and no index needs to have this version."""
    storage = DockerStorage()
    storage.add_flow(etl)
    with tarfile.open(fileobj=io.BytesIO(context(storage.image_contents("b", "")))) as archive:
        sent = {name.removeprefix("build/") for name in archive.getnames() if name.startswith("build/")}
    assert {"install.py", "pip/__main__.py", our_wheel()[0]} <= sent
    assert not [name for name in sent if "__pycache__" in name]


@pytest.mark.parametrize(
    ("dependencies", "lacks", "expected"),
    [
        ([], False, []),
        ([], True, ["ours.whl", "cp==1"]),
        (["pandas"], False, ["pandas"]),
        (["pandas"], True, ["ours.whl", "cp==1", "pandas"]),
        (["flow-dispatcher[dask]"], False, ["ours.whl", "flow-dispatcher[dask]"]),
        (["Flow_Dispatcher"], False, ["ours.whl", "Flow_Dispatcher"]),
        (["flow.dispatcher [dask] ; python_version>'3'"], True, ["ours.whl", "cp==1", ...]),
        (["flow-dispatcher[dask]>=1.2"], True, ["cp==1", ...]),
        (["flow-dispatcher @ https://example/x.whl"], False, [...]),
        (["flow-dispatcher-plugin"], False, ["flow-dispatcher-plugin"]),
    ],
)
def test_what_is_installed(dependencies: list[str], lacks: bool, expected: list[Any]) -> None:
    """An index may have another project under our name: it is asked only for a release that somebody names."""
    wanted = [*expected[:-1], *dependencies] if expected[-1:] == [...] else expected
    assert install.requirements_of("ours.whl", "cp==1", dependencies, lacks=lacks) == wanted


def test_a_project_of_our_name_on_an_index_is_not_installed(tmp_path: Path) -> None:
    name, data = our_wheel()
    index, here = tmp_path / "index", tmp_path / "here"
    index.mkdir()
    here.mkdir()
    (here / name).write_bytes(data)
    forged = "flow_dispatcher-99.0"
    with zipfile.ZipFile(index / f"{forged}-py3-none-any.whl", "w") as archive:
        archive.writestr("dispatcher/__init__.py", "raise SystemExit('forged')")
        archive.writestr(
            f"{forged}.dist-info/METADATA", "Metadata-Version: 2.1\nName: flow-dispatcher\nVersion: 99.0\n"
        )
        archive.writestr(f"{forged}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{forged}.dist-info/RECORD", "")
    requirements = install.requirements_of(str(here / name), "", ["flow-dispatcher[dask]"], lacks=False)
    options = ["-q", "--no-deps", "--no-index", "--find-links", str(index), "--target", str(tmp_path / "target")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *requirements], check=True)
    assert {path.name for path in (tmp_path / "target").glob("*.dist-info")} == {
        f"{name.partition('-py3')[0]}.dist-info"
    }


def test_our_own_wheel_is_one_that_pip_installs(tmp_path: Path) -> None:
    name, data = our_wheel()
    (tmp_path / name).write_bytes(data)
    target = tmp_path / "target"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, tmp_path / name],
        check=True, timeout=120,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import dispatcher, importlib.metadata as m; print(dispatcher.__file__);"
         "print(m.version('flow-dispatcher')); print(m.distribution('flow-dispatcher').locate_file(''))"],
        env={**os.environ, "PYTHONPATH": str(target)}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"{target}/dispatcher/__init__.py", version("flow-dispatcher"), f"{target}"]
    assert (target / "bin" / "dispatcher").exists()
    here = {str(path.relative_to(ROOT)) for top in PACKAGES for path in (ROOT / top).rglob("*.*") if path.is_file()}
    there = {str(path.relative_to(target)) for top in PACKAGES for path in (target / top).rglob("*.*")}
    assert {path for path in here if "__pycache__" not in path} == {
        path for path in there if "__pycache__" not in path and (target / path).is_file()
    }


def test_packages_come_together_whatever_their_folder_is_called(tmp_path: Path) -> None:
    prefix, target = tmp_path / "prefix", tmp_path / "target"
    for folder in (
        "lib/python3.11/site-packages",
        "lib64/python3.11/site-packages",
        "local/lib/python3.11/dist-packages",
    ):
        (prefix / folder).mkdir(parents=True)
        (prefix / folder / f"{folder.split('/')[0]}.py").touch()
    (prefix / "local" / "bin").mkdir()
    (prefix / "local" / "bin" / "tool").touch()
    install.gather(prefix, target)
    assert sorted(path.name for path in (target / "site-packages").iterdir()) == ["lib.py", "lib64.py", "local.py"]
    assert (target / "bin" / "tool").exists()


def test_locations_are_paths_that_do_not_collide() -> None:
    storage = DockerStorage()
    locations = {storage.add_flow(etl), storage.add_flow(other), storage.add_flow(flow(name="other-flow")(other.fn))}
    assert len(locations) == 3
    assert all(location.startswith(f"{DIRECTORY}/") for location in locations)
    assert storage.add_flow(other) in locations
    assert DockerStorage().add_flow(other) in locations  # the same in any process


def test_elsewhere_than_in_the_image_there_is_no_flow() -> None:
    storage = DockerStorage(image="x/y:1")
    with pytest.raises(NoFlowHere, match=r"only inside x/y:1"):
        storage.get_flow(f"/opt/flows/etl-00000000.flow#{'0' * 64}")
    with pytest.raises(InvalidInput, match=r"a location is '<path>#<SHA-256>' as add_flow gave it"):
        storage.get_flow("/opt/flows/etl-00000000.flow")


@pytest.mark.parametrize("storage", [DockerStorage(), DockerStorage(image_name="n", image_tag="t")])
def test_a_submit_of_an_unbuilt_storage_says_so(storage: DockerStorage) -> None:
    with (
        Dispatcher("memory://") as client,
        pytest.raises(InvalidInput, match=r"isn't built: call build.*dispatcher build"),
    ):
        client.submit(etl, storage=storage, environment=LocalEnvironment())


def test_a_flow_that_changed_since_the_build_is_unbuilt() -> None:
    storage = DockerStorage()
    storage.add_flow(etl)
    storage.image, storage._built = "etl:1", dict(storage.sealed)  # as build() leaves it
    storage.add_flow(etl)
    storage.check()
    storage.add_flow(other)
    with pytest.raises(InvalidInput, match="a flow was added or changed since it was built"):
        storage.check()


def test_another_flow_in_the_same_place_is_not_opened(tmp_path: Path) -> None:
    """A worker's own file at that path isn't the image's: the flow still runs in its container."""
    storage = in_its_image(tmp_path / "opt")
    location = storage.add_flow(etl)
    assert storage.get_flow(location)() == 1
    Path(location.partition("#")[0]).write_bytes(pack(other, subject="another flow"))
    with pytest.raises(SealBroken, match=r"holds another flow than was submitted.*was rebuilt") as caught:
        storage.get_flow(location)
    assert isinstance(caught.value, NoFlowHere)


def test_a_submit_elsewhere_names_the_flow_that_was_built() -> None:
    """Sealed anew, the same flow may have other bytes, so the digest of those in the image is signed."""
    built = DockerStorage()
    path = built.add_flow(etl).partition("#")[0]
    data = {**built.to_json(), "image": "etl:1", "digests": {path: "a" * 64}}
    elsewhere = from_json(data)
    assert elsewhere.add_flow(etl) == f"{path}#{'a' * 64}"
    elsewhere.check()
    elsewhere.add_flow(other)
    with pytest.raises(InvalidInput, match=r"etl:1 isn't known to hold flow 'Other Flow!' at .*dispatcher build"):
        elsewhere.check()


def test_a_flow_that_carries_its_storage_is_the_same_after_the_build() -> None:
    storage = DockerStorage()
    mine = flow(storage=storage)(etl.fn)
    storage.add_flow(mine)
    storage.image, storage.image_name, storage.image_tag, storage._built = "etl:1", "etl", "1", dict(storage.sealed)
    storage.add_flow(mine)
    storage.check()


def test_the_image_travels_but_not_the_arguments_of_its_build() -> None:
    storage = DockerStorage("r", env_vars={"TOKEN": "hush"}, python_dependencies=["a"], image="r/n@sha256:1")
    data = storage.to_json()
    assert "hush" not in json.dumps(data)
    assert "hush" not in repr(storage)
    for again in (from_json(data), pickle.loads(pickle.dumps(storage))):
        assert again == storage
        again.check()
        assert getattr(again, "image", None) == "r/n@sha256:1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_image": "a", "dockerfile": "b"}, "only one of base_image and dockerfile"),
        ({"files": {"a": "/b"}}, "both paths must be absolute"),
        ({"files": {"/a": "b"}}, "both paths must be absolute"),
        ({"registry_url": "https://r"}, "without scheme and credentials"),
        ({"registry_url": "me:secret@r"}, "without scheme and credentials"),
        ({"image_name": "a b"}, "image_name: must be a name"),
        ({"image_tag": ""}, "image_tag: must be a name"),
        ({"digests": {"/a": "b"}}, "digests: must map paths"),
        ({"digests": ["a"]}, "digests: must map paths"),
        ({"env_vars": {"A B": "c"}}, "env_vars: 'A B'"),
        ({"env_vars": {"A": "b\nc"}}, "without control characters"),
        ({"env_vars": {"A": "b\rRUN id"}}, "without control characters"),
        ({"env_vars": {"A": "x" * 2**17}}, "env_vars: A is too large"),
        ({"env_vars": {"A": "\ud800"}}, "without control characters"),
        ({"python_dependencies": ["pandas\nRUN id"]}, "without control characters"),
        ({"files": {"/a": "/b\nRUN id"}}, "has no control characters"),
        ({"python_dependencies": "pandas"}, "must be a list of requirements"),
        ({"python_dependencies": ["x @ https://me:secret@host/x.whl"]}, "a requirement's URL holds credentials"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        DockerStorage(**arguments)
    assert "secret" not in str(caught.value)


def test_without_a_flow_there_is_nothing_to_build() -> None:
    with pytest.raises(InvalidInput, match="no flow to build"):
        DockerStorage().build()


def test_a_missing_engine_is_named() -> None:
    storage = DockerStorage(base_url="unix:///nowhere/docker.sock")
    storage.add_flow(etl)
    with pytest.raises(InvalidInput, match=r"no Docker engine answers at unix:///nowhere/docker\.sock: start one"):
        storage.build()


def test_the_command_builds_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from dispatcher import DockerStorage, flow\n"
        "@flow\ndef plain(): ...\n"
        "@flow(storage=DockerStorage(base_url='unix:///nowhere/docker.sock'))\ndef built(): ...\n"
    )
    plain = call("build", "mine.py:plain")
    assert plain.exit_code == 2
    assert "needs no build: give the flow one" in plain.stderr
    built = call("build", "mine.py:built")
    assert built.exit_code == 2
    assert "no Docker engine answers at unix:///nowhere/docker.sock" in built.stderr
