"""The build context of an image of flows: a Dockerfile and its files, as one archive.

Pure except that it reads the files. Called by :mod:`dispatcher.storage.docker.storage`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dispatcher.errors import InvalidInput
from dispatcher.storage.docker import install
from dispatcher.storage.docker.install import TARGET
from dispatcher.storage.wheel import pip
from dispatcher.storage.wheel import wheel as our_wheel

#: The label that names an image's flows.
LABEL = "flow-dispatcher.flows"

#: The folder of the first stage with pip, our wheel and the installer. The final image doesn't have it.
STAGE = "/opt/flow-build"


@dataclass(frozen=True, kw_only=True)
class ImageContents:
    """The contents of an image of flows.

    Attributes:
        base: id or name of the image to build on.
        user: the user that the image runs as; empty: root.
        dependencies: requirements for pip.
        env_vars: environment variables.
        files: absolute path here → absolute path in the image.
        sealed: path in the image → a flow's sealed code.
        paths: flow name → path in the image.
    """

    base: str
    user: str
    dependencies: Sequence[str]
    env_vars: Mapping[str, str]
    files: Mapping[str, str]
    sealed: Mapping[str, bytes]
    paths: Mapping[str, str]


def dockerfile(contents: ImageContents, *, wheel: str) -> str:
    """Return the Dockerfile of an image.

    Packages are installed in a stage of their own, with the pip of :func:`context`: the final image gets the packages,
    but neither pip nor its leftovers. The lines that change least come first, so that a build after a change of a flow
    takes everything else from the cache.

    Args:
        contents: what the image consists of.
        wheel: the name of our wheel, which is installed if the base has no runner.
    """
    command = ["python3", f"{STAGE}/install.py", wheel, f"cloudpickle=={version('cloudpickle')}"]
    lines = [f"FROM {contents.base} AS packages", "USER root", f"COPY build {STAGE}"]
    lines.append(f"RUN {json.dumps([*command, *contents.dependencies])}")
    lines += [f"FROM {contents.base}", "USER root", f"COPY --from=packages {TARGET} {TARGET}"]
    for number, target in enumerate(contents.files.values()):
        lines.append(f"COPY {json.dumps([f'files/{number}', target])}")
    for name, value in contents.env_vars.items():
        lines.append(f"ENV {name}={_quoted(value)}")
    lines.append(f"ENV PATH={TARGET}/bin:$PATH PYTHONPATH={TARGET}/site-packages${{PYTHONPATH:+:$PYTHONPATH}}")
    for number, path in enumerate(contents.sealed):
        lines.append(f"COPY {json.dumps([f'flows/{number}', path])}")
    lines.append(f"LABEL {LABEL}={_quoted(json.dumps(dict(contents.paths), ensure_ascii=False))}")
    if contents.user:
        lines.append(f"USER {contents.user}")
    return "\n".join(lines) + "\n"


def context(contents: ImageContents) -> bytes:
    """Return the build context, a tar archive. The same contents give the same bytes.

    Raises:
        InvalidInput: a file can't be read, or pip isn't installed.
    """
    buffer = io.BytesIO()
    wheel, packed = our_wheel()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, "Dockerfile", dockerfile(contents, wheel=wheel).encode())
        _add(archive, "build/install.py", Path(install.__file__).read_bytes())
        _add(archive, f"build/{wheel}", packed)
        for name, data in pip():
            _add(archive, f"build/{name}", data)
        for number, data in enumerate(contents.sealed.values()):
            _add(archive, f"flows/{number}", data)
        for number, source in enumerate(contents.files):
            try:
                archive.add(Path(source), f"files/{number}", filter=_normalized)
            except OSError as error:
                raise InvalidInput(f"DockerStorage.files: {source}: {error.strerror}") from error
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def _normalized(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove the metadata that differs between machines, and make the file readable by any user of the container."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
