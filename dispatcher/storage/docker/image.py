"""The sources of an image of flows: a Dockerfile and its files, as one archive. Pure but for reading the files.

Called by :mod:`dispatcher.storage.docker.storage`.
"""

from __future__ import annotations

import io
import json
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher.errors import InvalidInput
from dispatcher.storage.docker import install
from dispatcher.storage.docker.install import TARGET
from dispatcher.storage.wheel import pip
from dispatcher.storage.wheel import wheel as our_wheel

if TYPE_CHECKING:
    from dispatcher.storage.docker.storage import DockerStorage

#: The label that names an image's flows.
LABEL = "flow-dispatcher.flows"

#: Where the first stage has what it installs with; the image itself has no such folder.
STAGE = "/opt/flow-build"


def dockerfile(storage: DockerStorage, *, base: str, user: str, wheel: str) -> str:
    """The Dockerfile of ``storage`` on top of an image.

    Packages are installed in a stage of their own, with the pip of :func:`context`: the image gets the packages, and
    neither pip nor what it leaves behind. What changes least comes first, so that another build of a changed flow takes
    all else from the cache.

    Args:
        storage: what to put into it.
        base: the image's id or name.
        user: the user that it runs as; empty: root.
        wheel: the name of our wheel, which is installed where the base has no runner.
    """
    command = ["python3", f"{STAGE}/install.py", wheel, f"cloudpickle=={version('cloudpickle')}"]
    lines = [f"FROM {base} AS packages", "USER root", f"COPY build {STAGE}"]
    lines.append(f"RUN {json.dumps([*command, *storage.python_dependencies])}")
    lines += [f"FROM {base}", "USER root", f"COPY --from=packages {TARGET} {TARGET}"]
    for number, target in enumerate(storage.files.values()):
        lines.append(f"COPY {json.dumps([f'files/{number}', target])}")
    for name, value in storage.env_vars.items():
        lines.append(f"ENV {name}={_quoted(value)}")
    lines.append(f"ENV PATH={TARGET}/bin:$PATH PYTHONPATH={TARGET}/site-packages${{PYTHONPATH:+:$PYTHONPATH}}")
    for number, path in enumerate(storage.sealed):
        lines.append(f"COPY {json.dumps([f'flows/{number}', path])}")
    lines.append(f"LABEL {LABEL}={_quoted(json.dumps(storage.paths, ensure_ascii=False))}")
    if user:
        lines.append(f"USER {user}")
    return "\n".join(lines) + "\n"


def context(storage: DockerStorage, *, base: str, user: str) -> bytes:
    """The build context, as a tar archive that is the same for the same content.

    Raises:
        InvalidInput: a file isn't there, or no pip.
    """
    buffer = io.BytesIO()
    wheel, packed = our_wheel()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, "Dockerfile", dockerfile(storage, base=base, user=user, wheel=wheel).encode())
        _add(archive, "build/install.py", Path(install.__file__).read_bytes())
        _add(archive, f"build/{wheel}", packed)
        for name, data in pip():
            _add(archive, f"build/{name}", data)
        for number, data in enumerate(storage.sealed.values()):
            _add(archive, f"flows/{number}", data)
        for number, source in enumerate(storage.files):
            try:
                archive.add(Path(source), f"files/{number}", filter=_plain)
            except OSError as error:
                raise InvalidInput(f"DockerStorage.files: {source}: {error.strerror}") from error
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what differs between machines; readable by any user of the container."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
